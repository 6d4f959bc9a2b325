"""Batches of a store: the same at any world size, depth and restart, and right against a plain reference."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import DataError
from configs.schema import DataConfig, LongHistories, Split
from data_pipeline.batch import SequenceBatch
from data_pipeline.split import Subset
from data_pipeline.store.history_reader import Histories, HistoryReader
from data_pipeline.stream.sequence_stream import SequenceStream, evaluation_batches
from models.keyed_jagged import to_kjt
from stores import kinds_of_items, places_of_a_cold_split, random_histories, time_of_quantile, write_store

NUM_USERS = 2500
ITEMS, TIMES = random_histories(NUM_USERS)
VALID_START, TEST_START = (
    time_of_quantile([time for times in TIMES for time in times], fraction) for fraction in (0.8, 0.9)
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("store") / "a", ITEMS, TIMES)


def config_of(store: str, **changes: object) -> DataConfig:
    values: dict = {
        "store": store,
        "max_history": 4,
        "global_batch_size": 160,
        "num_data_shards": 4,
        "prefetch_batches": 0,
    }
    return DataConfig(**{**values, **changes})


def stream_of(config: DataConfig, rank: int = 0, world_size: int = 1, seed: int = 0) -> SequenceStream:
    return SequenceStream(config, seed=seed, rank=rank, world_size=world_size)


def batches_of(config: DataConfig, count: int, start: int = 0, **where: int) -> list[SequenceBatch]:
    return list(islice(stream_of(config, **where).batches(start), count))


def rows_of(batches: list[SequenceBatch]) -> list[tuple[int, list[int], list[int]]]:
    """(user, items, timestamps) of every row, in order."""
    rows = []
    for batch in batches:
        lengths = batch.lengths.tolist()
        items, times = batch.item.split(lengths), batch.timestamp.split(lengths)
        rows += [(user, i.tolist(), t.tolist()) for user, i, t in zip(batch.user.tolist(), items, times, strict=True)]
    return rows


def train_rows(split: Split, kinds: list[int]) -> list[tuple[int, list[int], list[int]]]:
    """What one epoch must hold, by a plain loop."""
    rows = []
    for user, (items, times) in enumerate(zip(ITEMS, TIMES, strict=True)):
        end = len(items) - 2 if len(items) >= 3 else len(items)
        if split is Split.GLOBAL_TIME:
            end = sum(time < VALID_START for time in times)
        if split is Split.NONE:
            end = len(items)
        if split is Split.COLD_ITEMS:
            places, _ = places_of_a_cold_split(kinds, items)
            items, times = ([values[place] for place in places] for values in (items, times))
            end = len(places)
        if end >= 2:
            rows.append((user, items[:end][-5:], times[:end][-5:]))
    return rows


@pytest.mark.parametrize("split", list(Split))
def test_an_epoch_holds_the_training_events_of_every_user_once(store, split):
    config = config_of(store, split=split)
    num_steps = stream_of(config).steps_per_epoch
    assert sorted(rows_of(batches_of(config, num_steps, start=num_steps))) == train_rows(split, kinds_of_items(store))


@pytest.mark.parametrize("world_size", [2, 3, 4, 5, 16, 64])
def test_global_batches_do_not_depend_on_the_number_of_ranks(store, world_size):
    config = config_of(store)
    alone = batches_of(config, 40)
    ranks = [batches_of(config, 40, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, expected in enumerate(alone):
        assert rows_of([batches[step] for batches in ranks]) == rows_of([expected])


def test_global_batches_do_not_depend_on_row_groups_and_files(store, tmp_path):
    other = write_store(tmp_path / "b", ITEMS, TIMES, row_group_users=300, part_users=1000)
    assert rows_of(batches_of(config_of(other), 20)) == rows_of(batches_of(config_of(store), 20))


@pytest.mark.parametrize("shuffle_window_users", [1024, 8192])
@pytest.mark.parametrize("start", [0, 1, 7, 16, 33])
def test_a_stream_resumed_at_a_step_equals_the_uninterrupted_one(store, start, shuffle_window_users):
    config = config_of(store, shuffle_window_users=shuffle_window_users)
    assert rows_of(batches_of(config, 36)[start:]) == rows_of(batches_of(config, 36 - start, start=start))


@pytest.mark.parametrize(("prefetch_batches", "prefetch_mib"), [(5, 0), (0, 1), (5, 64)])
def test_prefetch_depth_does_not_matter(store, prefetch_batches, prefetch_mib):
    ahead = config_of(store, prefetch_batches=prefetch_batches, prefetch_mib=prefetch_mib, shuffle_window_users=1024)
    plain = config_of(store, prefetch_mib=0, shuffle_window_users=1024)
    assert rows_of(batches_of(ahead, 40)) == rows_of(batches_of(plain, 40))


@pytest.mark.parametrize("shuffle_window_users", [1024, 8192])
@pytest.mark.parametrize("block_tokens", [1, 700, 10**9])
def test_how_many_batches_are_cut_at_once_does_not_matter(store, monkeypatch, block_tokens, shuffle_window_users):
    config = config_of(store, shuffle_window_users=shuffle_window_users)
    expected = rows_of(batches_of(config, 90, start=5))
    monkeypatch.setattr("data_pipeline.stream.sequence_stream.BLOCK_TOKENS", block_tokens)
    assert rows_of(batches_of(config, 90, start=5)) == expected


def test_what_is_written_into_a_batch_reaches_no_other(store):
    batches = batches_of(config_of(store), 30)
    expected = [rows_of([batch]) for batch in batches]
    for batch, rows in zip(batches, expected, strict=True):
        assert rows_of([batch]) == rows
        for tensor in (batch.item, batch.lengths, batch.user, batch.timestamp):
            tensor.zero_()


def test_seeds_and_epochs_differ(store):
    config = config_of(store)
    num_steps = stream_of(config).steps_per_epoch
    first = rows_of(batches_of(config, 3))
    assert first != rows_of(batches_of(config, 3, seed=1))
    assert first != rows_of(batches_of(config, 3, start=num_steps))


def test_a_cache_of_nothing_changes_nothing(store, monkeypatch):
    expected = rows_of(batches_of(config_of(store), 30))
    monkeypatch.setattr("data_pipeline.stream.shuffle_window.CACHE_BYTES", 0)
    assert rows_of(batches_of(config_of(store), 30)) == expected


@pytest.mark.parametrize("long_histories", list(LongHistories))
def test_where_the_events_of_a_segment_lie_changes_nothing(store, monkeypatch, long_histories):
    config = config_of(store, max_history=4, long_histories=long_histories)
    found = []
    for least_used in (0.0, 2.0):  # always where they were decoded, never
        monkeypatch.setattr("data_pipeline.stream.shuffle_window.MIN_USED_FRACTION", least_used)
        found.append(rows_of(batches_of(config, 30)))
    assert found[0] == found[1]


def test_a_rank_without_users_gets_empty_batches(tmp_path):
    store = write_store(tmp_path / "s", [[1, 2, 3, 4]], [[1, 2, 3, 4]])
    batches = [batches_of(config_of(store), 1, rank=rank, world_size=4)[0] for rank in range(4)]
    assert sorted(batch.num_tokens for batch in batches) == [0, 0, 0, 2]
    assert all(batch.item.dtype == batch.timestamp.dtype == torch.int64 for batch in batches)
    for batch in batches:
        histories = to_kjt(batch)["item"]
        assert torch.equal(histories.lengths(), batch.lengths)
        assert histories.values().data_ptr() == batch.item.data_ptr(), "no copy"


@pytest.mark.parametrize("split", list(Split))
@pytest.mark.parametrize("subset", list(Subset))
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 100), (3, 1100)])
def test_every_evaluable_user_is_evaluated_once(store, split, subset, world_size, batch_size):
    config = config_of(store, split=split)
    found = []
    for rank in range(world_size):
        for batch in evaluation_batches(config, subset, batch_size=batch_size, rank=rank, world_size=world_size):
            assert batch.target.shape[0] <= batch_size
            seen = [items.tolist() for items in batch.seen.split(batch.seen_lengths.tolist())]
            found += zip(rows_of([batch.history]), batch.target.tolist(), seen, strict=True)
    assert found == evaluation_rows(split, subset, kinds_of_items(store))


def evaluation_rows(
    split: Split, subset: Subset, kinds: list[int]
) -> list[tuple[tuple[int, list[int], list[int]], int, list[int]]]:
    """((user, history, times), target, seen) of every evaluable user, by a plain loop."""
    rows = []
    low, high = (VALID_START, TEST_START) if subset is Subset.VALID else (TEST_START, 10**9)
    for user, (items, times) in enumerate(zip(ITEMS, TIMES, strict=True)):
        places = [place for place, time in enumerate(times) if low <= time < high and split is not Split.NONE]
        if split is Split.LEAVE_ONE_OUT:
            places = [len(items) - (2 if subset is Subset.VALID else 1)] if len(items) >= 3 else []
        if split is Split.COLD_ITEMS:
            places = [places_of_a_cold_split(kinds, items)[1][subset.value]]
        if places and places[0] >= 1:
            end = places[0]
            rows.append(((user, items[:end][-4:], times[:end][-4:]), items[end], items[:end]))
    return rows


@pytest.mark.parametrize("depth", [0, 2])
def test_an_item_outside_the_catalogue_names_file_and_row_group(tmp_path: Path, depth):
    store = write_store(tmp_path / "s", [[1, 2, 3]] * 9 + [[1, 50, 3]], [[1, 2, 3]] * 10, row_group_users=4)
    with pytest.raises(DataError, match=r"part-00000.parquet, row group 2: item ids .* \[0, 50\)"):
        batches_of(config_of(store, prefetch_batches=depth), 3)


def test_a_history_that_goes_back_in_time_is_refused(tmp_path):
    store = write_store(tmp_path / "s", [[1, 2, 3], [1, 2, 3]], [[7, 8, 9], [1, 3, 2]])
    with pytest.raises(DataError, match="1 events come before their predecessor"):
        batches_of(config_of(store), 1)


def test_a_store_that_lost_a_file_is_refused(tmp_path):
    store = write_store(tmp_path / "s", ITEMS, TIMES, part_users=1000)
    Path(store, "histories", "part-00001.parquet").unlink()
    with pytest.raises(DataError, match="holds 1500 users"):
        stream_of(config_of(store))


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    store = write_store(tmp_path / "s", ITEMS, TIMES)
    path = Path(store, "histories", "part-00000.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"part-00000\.parquet"):
        stream_of(config_of(store))


def test_training_past_the_split_point_is_refused(store, monkeypatch):
    monkeypatch.setattr(
        "data_pipeline.stream.shuffle_window.train_lengths", lambda rule, offsets, timestamp: np.diff(offsets)
    )
    for split in (Split.LEAVE_ONE_OUT, Split.GLOBAL_TIME):
        with pytest.raises(DataError, match="at or after the split point"):
            batches_of(config_of(store, split=split), 1)


def test_a_rank_reads_its_own_data_shards_and_the_window_of_its_step_only(tmp_path, monkeypatch):
    store = write_store(tmp_path / "s", *random_histories(8192, longest=3))
    config = config_of(store, num_data_shards=2, shuffle_window_users=1024, prefetch_mib=0)
    read: list[tuple[int, int]] = []
    monkeypatch.setattr(HistoryReader, "read", recording(HistoryReader.read, read))
    batches_of(config, 1, start=40, rank=1, world_size=2)
    assert len(read) == 1
    assert read[0][0] >= 4096


def recording(read: Callable[..., Histories], ranges: list[tuple[int, int]]) -> Callable[..., Histories]:
    """``read``, noting what was asked for."""

    def noted(reader: HistoryReader, start: int, end: int) -> Histories:
        ranges.append((start, end))
        return read(reader, start, end)

    return noted
