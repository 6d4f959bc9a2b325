"""Batches by tokens and windows of long histories: the order law, nothing lost, ranks in balance."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, LongHistories, Split
from data_pipeline.batch import SequenceBatch
from data_pipeline.split import Subset
from data_pipeline.stream.cumulative_weights import CumulativeWeights
from data_pipeline.stream.sequence_stream import SequenceStream, evaluation_batches
from data_pipeline.stream.sequences import SequenceRule
from stores import kinds_of_items, places_of_a_cold_split, random_histories, time_of_quantile, write_store

NUM_USERS = 2500
ITEMS, TIMES = random_histories(NUM_USERS, longest=40)
VALID_START = time_of_quantile([time for times in TIMES for time in times], 0.8)
MAX_HISTORY = 6
NUM_SHARDS = 4
TOKENS = {"global_batch_tokens": 900}
WINDOWS = {"long_histories": LongHistories.WINDOWS}
MODES = [TOKENS, TOKENS | WINDOWS, WINDOWS]
Row = tuple[int, tuple[int, ...], tuple[int, ...]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(tmp_path_factory.mktemp("store") / "a", ITEMS, TIMES)


def stream_of(store: str, mode: dict, rank: int = 0, world_size: int = 1, **changes: object) -> SequenceStream:
    values: dict = {"max_history": MAX_HISTORY, "global_batch_size": 160, "num_data_shards": NUM_SHARDS}
    values |= {"prefetch_batches": 0, "prefetch_mib": 0}
    config = DataConfig(store=store, **{**values, **mode, **changes})
    return SequenceStream(config, seed=0, rank=rank, world_size=world_size)


def batches_of(stream: SequenceStream, count: int, start: int = 0) -> list[SequenceBatch]:
    return list(islice(stream.batches(start), count))


def epoch_of(stream: SequenceStream, epoch: int = 0) -> list[SequenceBatch]:
    return batches_of(stream, stream.steps_per_epoch, start=epoch * stream.steps_per_epoch)


def rows_of(batches: list[SequenceBatch]) -> list[Row]:
    """(user, items, timestamps) of every sequence, in order."""
    rows = []
    for batch in batches:
        lengths = batch.lengths.tolist()
        for user, items, times in zip(
            batch.user.tolist(), batch.item.split(lengths), batch.timestamp.split(lengths), strict=True
        ):
            rows.append((user, tuple(items.tolist()), tuple(times.tolist())))
    return rows


def training_events(split: Split, kinds: list[int]) -> list[tuple[list[int], list[int]]]:
    """Items and times that training may see, by a plain loop."""
    events = []
    for items, times in zip(ITEMS, TIMES, strict=True):
        end = len(items) - 2 if len(items) >= 3 else len(items)
        if split is Split.GLOBAL_TIME:
            end = sum(time < VALID_START for time in times)
        if split is Split.NONE:
            end = len(items)
        places = list(range(end))
        if split is Split.COLD_ITEMS:
            places, _ = places_of_a_cold_split(kinds, items)
        events.append(([items[place] for place in places], [times[place] for place in places]))
    return events


def expected_rows(split: Split, is_in_windows: bool, kinds: list[int]) -> list[Row]:
    """What one epoch must hold: from the last event backwards, as far as there is an event to predict."""
    rows = []
    for user, (items, times) in enumerate(training_events(split, kinds)):
        end = len(items)
        while end >= 2:
            start = max(end - MAX_HISTORY - 1, 0)
            rows.append((user, tuple(items[start:end]), tuple(times[start:end])))
            end = start + 1 if is_in_windows else 0
    return rows


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("split", list(Split))
def test_an_epoch_holds_every_sequence_once(store, mode, split):
    found = rows_of(epoch_of(stream_of(store, mode, split=split), epoch=1))
    assert sorted(found) == sorted(expected_rows(split, "long_histories" in mode, kinds_of_items(store)))


@pytest.mark.parametrize("mode", [TOKENS | WINDOWS, WINDOWS])
def test_with_windows_every_training_event_but_the_first_is_predicted_once(store, mode):
    predicted = Counter(
        (user, item, time)
        for user, items, times in rows_of(epoch_of(stream_of(store, mode)))
        for item, time in zip(items[1:], times[1:], strict=True)
    )
    assert predicted == Counter(
        (user, item, time)
        for user, (items, times) in enumerate(training_events(Split.LEAVE_ONE_OUT, []))
        for item, time in zip(items[1:], times[1:], strict=True)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world_size", [2, 4, 6, 16])
def test_global_batches_do_not_depend_on_the_number_of_ranks(store, mode, world_size):
    alone = stream_of(store, mode)
    ranks = [stream_of(store, mode, rank, world_size, prefetch_mib=rank) for rank in range(world_size)]
    assert {rank.steps_per_epoch for rank in ranks} == {alone.steps_per_epoch}
    count = alone.steps_per_epoch + 5
    parts = zip(*(batches_of(rank, count) for rank in ranks), strict=True)
    for expected, part in zip(batches_of(alone, count), parts, strict=True):
        assert rows_of(list(part)) == rows_of([expected])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shuffle_window_users", [1024, 8192])
def test_a_stream_resumed_at_any_step_equals_the_uninterrupted_one(store, mode, shuffle_window_users):
    whole = stream_of(store, mode, shuffle_window_users=shuffle_window_users)
    num_steps = whole.steps_per_epoch + 3
    batches = batches_of(whole, num_steps)
    for start in range(num_steps):
        resumed = stream_of(store, mode, shuffle_window_users=shuffle_window_users, prefetch_mib=start % 2)
        expected = batches[start : start + 2]
        assert rows_of(batches_of(resumed, len(expected), start)) == rows_of(expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "depth", [{"prefetch_batches": 4}, {"prefetch_mib": 1}, {"prefetch_batches": 2, "prefetch_mib": 64}]
)
def test_reading_ahead_does_not_matter(store, mode, depth):
    ahead = rows_of(batches_of(stream_of(store, mode, shuffle_window_users=1024, **depth), 60))
    assert ahead == rows_of(batches_of(stream_of(store, mode, shuffle_window_users=1024), 60))


@pytest.mark.parametrize("mode", MODES)
def test_global_batches_do_not_depend_on_row_groups_and_files(store, mode, tmp_path):
    other = write_store(tmp_path / "b", ITEMS, TIMES, row_group_users=300, part_users=1000)
    assert rows_of(batches_of(stream_of(other, mode), 20)) == rows_of(batches_of(stream_of(store, mode), 20))


@pytest.mark.parametrize("mode", [TOKENS, TOKENS | WINDOWS])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_rank_gets_its_part_of_the_tokens_in_every_step(store, mode, world_size):
    streams = [stream_of(store, mode, rank, world_size) for rank in range(world_size)]
    tokens = np.array([[batch.num_tokens for batch in epoch_of(stream)] for stream in streams])
    num_steps = streams[0].steps_per_epoch
    assert num_steps == -(-tokens.sum() // 900)
    mean = tokens.sum() / num_steps / world_size
    # a data shard's share ends inside a sequence, and its range of users inside a history of at most 40 events
    bound = NUM_SHARDS / world_size * (MAX_HISTORY + 1 + 1 + 48 / num_steps)
    assert np.abs(tokens - mean).max() <= bound


def test_data_shards_balance_where_users_lie_sorted_by_length(tmp_path):
    lengths = np.sort(np.random.default_rng(0).integers(3, 60, 4000)).tolist()
    items, times = [[1] * length for length in lengths], [list(range(length)) for length in lengths]
    store = write_store(tmp_path / "s", items, times)
    mode = {"global_batch_tokens": 8000, "max_history": 50}
    tokens = np.array(
        [[batch.num_tokens for batch in epoch_of(stream_of(store, mode, rank, 4))] for rank in range(4)]
    )
    assert (tokens.max(0) / tokens.mean(0)).max() < 1.06  # 51 + 1 tokens of 2,000 either way
    assert tokens.sum() == sum(min(length - 2, 51) for length in lengths if length >= 4)


def test_steps_of_windows_count_sequences(store):
    sizes = [len(batch.lengths) for batch in epoch_of(stream_of(store, WINDOWS))]
    assert len(sizes) == -(-sum(sizes) // 160)
    assert max(sizes) - min(sizes) <= NUM_SHARDS


def test_evaluation_sees_the_latest_events_with_windows_too(store):
    values: dict = {
        "store": store,
        "max_history": MAX_HISTORY,
        "num_data_shards": NUM_SHARDS,
        "global_batch_size": 160,
    }
    latest, windows = (
        list(evaluation_batches(DataConfig(**values, **mode), Subset.TEST, batch_size=100, rank=0, world_size=1))
        for mode in ({}, WINDOWS)
    )
    assert rows_of([batch.history for batch in windows]) == rows_of([batch.history for batch in latest])


@pytest.mark.parametrize("split", list(Split))
def test_the_lengths_are_read_from_their_file_the_second_time(tmp_path, split, monkeypatch):
    store = write_store(tmp_path / "s", ITEMS, TIMES)
    first = rows_of(batches_of(stream_of(store, TOKENS, split=split), 5))
    monkeypatch.delattr("data_pipeline.store.history_reader.HistoryReader.times")
    assert rows_of(batches_of(stream_of(store, TOKENS, split=split), 5)) == first


def test_a_lengths_file_that_is_damaged_is_made_again(tmp_path):
    store = write_store(tmp_path / "s", ITEMS, TIMES)
    expected = rows_of(batches_of(stream_of(store, TOKENS), 5))
    (path,) = Path(store, "lengths").iterdir()
    content = path.read_bytes()
    for wrong in (b"", content[:50], content[:-4], content[::-1], content[8:]):
        path.write_bytes(wrong)
        with pytest.warns(UserWarning, match=f"{path} is damaged; it is made again"):
            assert rows_of(batches_of(stream_of(store, TOKENS), 5)) == expected
        assert path.read_bytes() == content


def test_a_store_that_cannot_be_written_is_used_with_a_warning(tmp_path):
    store = write_store(tmp_path / "s", ITEMS, TIMES)
    Path(store, "lengths").write_text("in the way")
    with pytest.warns(UserWarning, match="scanned at each start"):
        stream = stream_of(store, TOKENS)
    assert batches_of(stream, 1)[0].num_tokens > 0


def test_a_store_with_nothing_to_learn_is_refused(tmp_path):
    store = write_store(tmp_path / "s", [[1]] * 9, [[1]] * 9)
    with pytest.raises(DataError, match="no user of the store has an event to learn from"):
        stream_of(store, TOKENS)


def test_a_rank_without_users_gets_empty_batches(tmp_path):
    store = write_store(tmp_path / "s", [[1, 2, 3, 4]], [[1, 2, 3, 4]])
    tokens = [epoch_of(stream_of(store, TOKENS, rank, 4))[0].num_tokens for rank in range(4)]
    assert sorted(tokens) == [0, 0, 0, 2]


def test_negative_tokens_are_refused():
    with pytest.raises(ConfigError, match=r"data\.global_batch_tokens=-1"):
        DataConfig(global_batch_tokens=-1)


@pytest.mark.parametrize("long_histories", list(LongHistories))
@pytest.mark.parametrize("max_history", [1, 2, 5])
def test_sequences_hold_what_their_rule_says(long_histories, max_history):
    rule = SequenceRule(max_history, long_histories)
    lengths = np.arange(0, 30)
    row, _, cut = rule.cut(np.zeros(30, np.int64), lengths)
    np.testing.assert_array_equal(np.bincount(row, minlength=30), rule.num_sequences(lengths))
    np.testing.assert_array_equal(np.bincount(row, cut, minlength=30), rule.num_tokens(lengths))


def test_marks_find_the_user_that_plain_sums_find(monkeypatch):
    monkeypatch.setattr("data_pipeline.stream.cumulative_weights.BLOCKS_AT_A_TIME", 1)
    lengths = np.random.default_rng(1).integers(0, 5, 3000).astype(np.int32)
    weights = CumulativeWeights(lengths, lambda lengths: lengths.astype(np.int64), 10)
    running = np.concatenate([[0], np.cumsum(lengths)])
    assert weights.total == running[-1]
    for user in [0, 1, 1023, 1024, 1025, 2048, 2999, 3000]:
        assert weights.weight_before(user) == running[user]
    for mark in range(0, weights.total + 1, 7):
        assert weights.user_at_offset(mark) == np.flatnonzero(running >= mark)[0]
