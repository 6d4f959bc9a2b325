"""The order of users: laws of a pure function."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from data_pipeline.stream.order import Order, OrderKey, ShardPart, parts_of_rank, segments_of, stable_order

KEY = OrderKey("abc", "leave_one_out", 0, 64, 4, 2, 10_001)


def users_of(order: Order, epoch: int) -> list[np.ndarray]:
    return [order.users(epoch, step) for step in range(order.steps_per_epoch)]


@pytest.mark.parametrize("num_users", [1, 3, 64, 1000, 1024, 10_001])
@pytest.mark.parametrize("num_data_shards", [1, 4, 8])
def test_an_epoch_holds_every_user_once(num_users, num_data_shards):
    order = Order(replace(KEY, num_users=num_users, num_data_shards=num_data_shards))
    assert sorted(np.concatenate(users_of(order, 3))) == list(range(num_users))


def test_only_the_last_step_of_an_epoch_is_smaller():
    sizes = [len(users) for users in users_of(Order(replace(KEY, num_users=10_000)), 0)]
    assert set(sizes[:-1]) == {64}
    assert 0 < sizes[-1] < 64


def test_a_step_takes_the_same_share_from_every_lane():
    users = Order(replace(KEY, num_users=10_000)).users(0, 7)
    assert (users // 2500).tolist() == [shard for shard in range(4) for _ in range(16)]


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "abd"},
        {"split": "global_time"},
        {"seed": 1},
        {"global_batch_size": 128},
        {"num_data_shards": 8},
        {"window_segments": 3},
        {"num_users": 10_002},
    ],
)
def test_every_part_of_the_key_changes_the_order(change):
    first = users_of(Order(KEY), 0)
    other = users_of(Order(replace(KEY, **change)), 0)
    assert np.concatenate(first).tolist() != np.concatenate(other).tolist()


def test_epochs_differ_and_repeat_exactly():
    assert Order(KEY).users(0, 5).tolist() != Order(KEY).users(1, 5).tolist()
    assert Order(KEY).users(1, 5).tolist() == Order(KEY).users(1, 5).tolist()


def test_users_are_mixed_over_the_segments_of_a_window():
    users = Order(replace(KEY, num_data_shards=1, num_users=8192, window_segments=8)).users(0, 0)
    assert len(set(users // 1024)) == 8


def test_segments_are_cut_where_full_row_groups_start():
    assert segments_of(1000, 3000) == [(1000, 1024), (1024, 2048), (2048, 3000)]
    assert segments_of(1024, 2048) == [(1024, 2048)]
    assert segments_of(5, 5) == []


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_own_contiguous_whole_data_shards_without_gap_or_overlap(world_size):
    owned = [part for rank in range(world_size) for part in parts_of_rank(rank, world_size, 8)]
    assert owned == [ShardPart(shard) for shard in range(8)]


@pytest.mark.parametrize("share", [0, 1, 5, 16, 1000])
@pytest.mark.parametrize(
    ("world_size", "num_shards"), [(2, 1), (5, 4), (12, 8), (64, 8), (4096, 8), (7, 7), (100, 3)]
)
def test_over_all_ranks_every_share_is_taken_once_and_in_order(world_size, num_shards, share):
    low = np.arange(3) * share
    taken: list[list[int]] = [[] for _ in low]
    for rank in range(world_size):
        for part in parts_of_rank(rank, world_size, num_shards):
            for step, (start, end) in enumerate(zip(*part.cut(low, low + share), strict=True)):
                taken[step] += [part.shard * share + place - low[step] for place in range(start, end)]
    assert taken == [list(range(num_shards * share))] * 3


@pytest.mark.parametrize("world_size", [9, 12, 64, 100])
def test_more_ranks_than_data_shards_take_equal_parts(world_size):
    def size(rank: int) -> Fraction:
        parts = parts_of_rank(rank, world_size, 8)
        return sum((Fraction(part.end - part.first, part.num_parts) for part in parts), Fraction())

    assert {size(rank) for rank in range(world_size)} == {Fraction(8, world_size)}


def test_a_store_without_users_is_refused():
    with pytest.raises(DataError, match="no users"):
        Order(replace(KEY, num_users=0))


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=300))
def test_equal_words_keep_their_order(words):
    words = np.array(words, np.uint64)
    assert stable_order(words).tolist() == sorted(range(len(words)), key=words.tolist().__getitem__)
