"""A cropped sequence is a part of the user's own, another one in every epoch, the same whoever asks for it."""

from dataclasses import replace
from itertools import islice
from math import ceil

import pytest

from configs.errors import ConfigError
from configs.schema import DataConfig, LongHistories
from data_pipeline.stream.sequence_stream import SequenceStream
from stores import random_histories, write_store

NUM_USERS = 90
Sequences = list[tuple[int, list[int]]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    items, timestamps = random_histories(NUM_USERS, longest=40)
    store = write_store(tmp_path_factory.mktemp("crop") / "store", items, timestamps, row_group_users=16)
    return DataConfig(store=store, global_batch_size=16, max_history=20, crop_fraction=0.6)


def epoch_of(config: DataConfig, epoch: int, *, rank: int = 0, world_size: int = 1, skipped: int = 0) -> Sequences:
    """(user, items) of the sequences of an epoch, from its ``skipped``-th step on."""
    stream = SequenceStream(config, seed=3, rank=rank, world_size=world_size)
    start = epoch * stream.steps_per_epoch + skipped
    found: Sequences = []
    for batch in islice(stream.batches(start=start), stream.steps_per_epoch - skipped):
        items = [part.tolist() for part in batch.item.split(batch.lengths.tolist())]
        found += zip(batch.user.tolist(), items, strict=True)
    return found


MODES = [{}, {"global_batch_tokens": 150}, {"long_histories": LongHistories.WINDOWS}]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_part_of_every_sequence_is_learnt_from_and_its_length_is_the_fraction(config: DataConfig, mode: dict):
    config = replace(config, **mode)
    whole, parts = epoch_of(replace(config, crop_fraction=1.0), 0), epoch_of(config, 0)
    assert len(parts) > 80
    assert sorted(user for user, _ in parts) == sorted(user for user, _ in whole)
    left = sorted(whole)
    for user, part in sorted(parts):
        candidates = [sequence for other, sequence in left if other == user]
        assert any(
            len(part) == max(ceil(0.6 * len(sequence)), min(2, len(sequence))) and _is_part(part, sequence)
            for sequence in candidates
        )


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_which_part_it_is_hangs_neither_on_ranks_nor_on_where_one_begins(config: DataConfig, mode: dict):
    config = replace(config, **mode)
    whole = epoch_of(config, 1)
    over_ranks = [sequence for rank in range(2) for sequence in epoch_of(config, 1, rank=rank, world_size=2)]
    assert sorted(over_ranks) == sorted(whole)
    late = epoch_of(config, 1, skipped=2)
    assert late == whole[len(whole) - len(late) :]
    assert 0 < len(late) < len(whole)


def test_another_epoch_learns_from_other_parts(config: DataConfig):
    first, second = (dict(sorted(epoch_of(config, epoch))) for epoch in (0, 1))
    differing = [user for user in first if first[user] != second[user]]
    assert len(differing) > len(first) / 2
    assert sum(map(len, first.values())) == sum(map(len, second.values()))


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_a_fraction_that_is_none_is_refused(fraction: float):
    with pytest.raises(ConfigError, match=r"data\.crop_fraction"):
        DataConfig(crop_fraction=fraction)


def _is_part(part: list[int], sequence: list[int]) -> bool:
    return any(sequence[start : start + len(part)] == part for start in range(len(sequence) - len(part) + 1))
