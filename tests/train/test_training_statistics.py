"""What training counts, it counts of training events alone: the law that held-out events change nothing of it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from configs.schema import DataConfig, Split
from data_pipeline.split import HeldOut, split_rule
from data_pipeline.store.manifest import load_manifest
from data_pipeline.training_events import training_item_counts
from ranks import run_ranks
from runs import losses_and_ranks, tiny_run
from stores import random_histories, write_store

LOSS = ["loss=sampled_softmax", "loss.num_negatives=16", "loss.popularity_exponent=0.75", "loss.in_batch_negatives=8"]
NUM_USERS = 200
HISTORIES = random_histories(NUM_USERS, seed=3)
OTHER_SPLITS = [
    ("leave_one_out", {}),
    ("global_time", {"global_time_valid": "1970-01-01T00:00:00.500", "global_time_test": "1970-01-01T00:00:00.700"}),
    ("none", {}),
]


def is_trained(split: str, place: int, length: int, time: int, held_out: HeldOut) -> bool:
    """Whether the event at ``place`` of a history of ``length`` is one for training, by the page on splits."""
    if split == "none" or held_out is HeldOut.NOTHING:
        return True
    if split == "global_time":
        return time < (500 if held_out is HeldOut.VALID_AND_TEST else 700)
    return length < 3 or place < length - (2 if held_out is HeldOut.VALID_AND_TEST else 1)


@pytest.mark.parametrize("held_out", list(HeldOut))
@pytest.mark.parametrize(("split", "keys"), OTHER_SPLITS)
def test_the_counts_are_of_training_events_whatever_part_of_the_users_is_read(
    split: str, keys: dict[str, str], held_out: HeldOut, tmp_path: Path
) -> None:
    items, times = HISTORIES
    store = write_store(tmp_path / "store", items, times, row_group_users=64)
    manifest = load_manifest(store)
    rule = split_rule(DataConfig(store=store, split=Split(split), **keys), manifest, held_out)
    expected = Counter(
        item
        for history, when in zip(items, times, strict=True)
        for place, (item, time) in enumerate(zip(history, when, strict=True))
        if is_trained(split, place, len(history), time, held_out)
    )
    for num_parts in (1, 3, NUM_USERS + 7):
        parts = [training_item_counts(store, manifest, rule, part, num_parts) for part in range(num_parts)]
        assert np.sum(parts, axis=0).tolist() == [expected[item] for item in range(manifest.num_items)]


def losses_of(store: str, folder: Path, *more: str) -> list[float]:
    """Of four steps on two ranks."""
    words = [*tiny_run(store, folder, 4), "hardware.num_ranks=2", *LOSS, *more]
    losses: list[float] = run_ranks(2, losses_and_ranks, words, 4)[0][0]
    return losses


def test_other_held_out_events_leave_batches_negatives_and_losses_as_they_are(tmp_path: Path) -> None:
    items, times = HISTORIES
    others = [history if len(history) < 3 else [*history[:-2], 0, 0] for history in items]
    assert others != items
    ours, theirs = (write_store(tmp_path / name, each, times) for name, each in (("a", items), ("b", others)))
    losses = losses_of(ours, tmp_path)
    assert losses_of(theirs, tmp_path) == losses
    assert losses_of(ours, tmp_path, "loss.popularity_exponent=0.1") != losses, "the counts reach the loss"
