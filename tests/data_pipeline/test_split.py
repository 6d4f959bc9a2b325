"""Which events are for training, validation and test."""

import numpy as np
import pytest

from configs.errors import DataError
from configs.schema import Split
from data_pipeline.split import SplitRule, Subset, refuse_future, target_positions, train_lengths

LEAVE_ONE_OUT = SplitRule(Split.LEAVE_ONE_OUT, 0, 0)
BY_TIME = SplitRule(Split.GLOBAL_TIME, valid_start_ms=80, test_start_ms=90)


def jagged(*histories: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and timestamps of ``histories``."""
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    return offsets.astype(np.int64), np.array([time for history in histories for time in history], np.int64)


def test_leave_one_out_keeps_the_last_two_events_of_users_with_three():
    offsets, timestamp = jagged([1], [1, 2], [1, 2, 3], [1, 1, 1, 1, 1])
    assert train_lengths(LEAVE_ONE_OUT, offsets, timestamp).tolist() == [1, 2, 1, 3]
    assert target_positions(LEAVE_ONE_OUT, Subset.VALID, offsets, timestamp).tolist() == [-1, -1, 1, 3]
    assert target_positions(LEAVE_ONE_OUT, Subset.TEST, offsets, timestamp).tolist() == [-1, -1, 2, 4]


def test_global_time_takes_the_first_event_of_each_interval():
    offsets, timestamp = jagged([], [10, 79, 80, 85, 90], [10, 95, 99], [85, 90], [10, 20], [10, 89])
    assert train_lengths(BY_TIME, offsets, timestamp).tolist() == [0, 2, 1, 0, 2, 1]
    assert target_positions(BY_TIME, Subset.VALID, offsets, timestamp).tolist() == [-1, 2, -1, -1, -1, 1]
    assert target_positions(BY_TIME, Subset.TEST, offsets, timestamp).tolist() == [-1, 4, 1, 1, -1, -1]


def test_training_on_an_event_at_the_boundary_is_refused():
    refuse_future(BY_TIME, 0, np.array([1]), np.array([2]), np.array([79]))
    with pytest.raises(DataError, match="at or after the split point"):
        refuse_future(BY_TIME, 0, np.array([1]), np.array([2]), np.array([80]))


def test_training_on_a_left_out_event_is_refused():
    refuse_future(LEAVE_ONE_OUT, 0, np.array([2, 2]), np.array([4, 2]), np.array([2, 4]))
    with pytest.raises(DataError, match="at or after the split point"):
        refuse_future(LEAVE_ONE_OUT, 0, np.array([3, 2]), np.array([4, 2]), np.array([3, 5]))
