"""Items that a split holds out: by raw id, out of all training, and each target after the events before it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from logs import random_log

from configs.errors import ConfigError
from configs.load import load_config
from data_pipeline.cold_items import WARM, cold_items
from data_pipeline.prepare.prepare import prepare
from data_pipeline.split import HeldOut, Subset, split_rule
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest, item_table, load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream, evaluation_batches
from data_pipeline.training_events import training_item_counts

SPLIT = ["data.split=cold_items", "data.cold_items_fraction=0.4", "data.global_batch_size=8", "data.max_history=1000"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a log with repeats."""
    folder = tmp_path_factory.mktemp("cold")
    random_log(900).write_parquet(folder / "log.parquet")
    prepare(load_config([f"data.log={folder}/log.parquet", f"data.store={folder}/store"]).data)
    return str(folder / "store")


def cold_of(store: str, fraction: float = 0.4, seed: int = 0) -> tuple[Manifest, np.ndarray]:
    """What each item is."""
    manifest = load_manifest(store)
    return manifest, cold_items(store, manifest, fraction, seed)


def histories_of(store: str, manifest: Manifest) -> list[list[int]]:
    """Items of each user."""
    found = HistoryReader(store, manifest).read(0, manifest.num_users)
    return [each.tolist() for each in np.split(found.item, found.offsets[1:-1])]


def test_which_items_are_cold_depends_on_their_raw_ids_alone(store: str, tmp_path: Path) -> None:
    log = random_log(900).filter(pl.col("item_id") % 7 != 0)
    log.write_parquet(tmp_path / "log.parquet")
    prepare(load_config([f"data.log={tmp_path}/log.parquet", f"data.store={tmp_path}/store"]).data)
    by_raw = []
    for place in (store, f"{tmp_path}/store"):
        manifest, cold = cold_of(place)
        raw = item_table(place, manifest, ["raw_item"])["raw_item"].to_pylist()
        by_raw.append(dict(zip(raw, cold.tolist(), strict=True)))
    assert by_raw[1].items() <= by_raw[0].items()
    assert set(by_raw[0].values()) == {0, 1, 2}
    assert (cold_of(store, seed=1)[1] != cold_of(store)[1]).any()


@pytest.mark.parametrize(
    "more", [[], ["data.global_batch_tokens=40"], ["data.long_histories=windows", "data.max_history=5"]]
)
def test_training_sees_warm_events_alone_and_none_of_a_warm_target(store: str, more: list[str]) -> None:
    config = load_config([*SPLIT, *more, f"data.store={store}"]).data
    manifest, cold = cold_of(store)
    expected = {}
    for user, items in enumerate(histories_of(store, manifest)):
        warm = [item for item in items if cold[item] == WARM]
        expected[user] = warm[:-2] if len(warm) >= 3 else warm
    stream = SequenceStream(config, seed=0, rank=0, world_size=1)
    batches = stream.batches()
    seen = {user: [] for user in expected}
    for _ in range(stream.steps_per_epoch):
        batch = next(batches)
        for user, items in zip(batch.user.tolist(), batch.item.split(batch.lengths.tolist()), strict=True):
            seen[user].append(items.tolist())
    batches.close()
    for user, events in expected.items():
        if len(events) < 2:
            assert not seen[user], "nothing to predict"
        elif config.max_history >= 100:
            assert seen[user] == [events]
        else:
            assert sum(len(part) - 1 for part in seen[user]) == len(events) - 1
    counts = training_item_counts(store, manifest, split_rule(config, manifest, HeldOut.VALID_AND_TEST))
    assert (
        counts.tolist()
        == np.bincount(np.concatenate([*expected.values()]).astype(int), minlength=manifest.num_items).tolist()
    )


@pytest.mark.parametrize("subset", Subset)
def test_the_target_is_the_last_cold_event_or_else_a_held_out_warm_one(store: str, subset: Subset) -> None:
    config = load_config([*SPLIT, f"data.store={store}"]).data
    manifest, cold = cold_of(store)
    code, from_end = (2, 1) if subset is Subset.TEST else (1, 2)
    expected = {}
    for user, items in enumerate(histories_of(store, manifest)):
        of_subset = [place for place, item in enumerate(items) if cold[item] == code and place]
        warm = [place for place, item in enumerate(items) if cold[item] == WARM]
        place = of_subset[-1] if of_subset else (warm[-from_end] if len(warm) >= 3 else None)
        if place is not None:
            expected[user] = (items[place], items[:place])
    found = {}
    for batch in evaluation_batches(config, subset, batch_size=7, rank=0, world_size=1):
        parts = batch.history.item.split(batch.history.lengths.tolist())
        for user, target, items in zip(batch.history.user.tolist(), batch.target.tolist(), parts, strict=True):
            found[user] = (target, items.tolist())
    assert found == expected


@pytest.mark.parametrize("words", [["train.refit=true"], ["init_from=runs/other"]])
def test_what_would_train_on_cold_items_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"does not go with data\.split=cold_items"):
        load_config([*SPLIT, *words])
