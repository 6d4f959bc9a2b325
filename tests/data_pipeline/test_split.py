"""Which events are for training, validation and test."""

from dataclasses import replace

import numpy as np
import pytest

from configs.errors import DataError
from configs.schema import Split
from data_pipeline.split import HeldOut, SplitRule, Subset, refuse_future, target_positions, train_lengths

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


def test_a_final_fit_trains_on_validation_too_or_on_everything():
    offsets, timestamp = jagged([1], [1, 2], [1, 2, 3], [10, 79, 80, 85, 90])
    by_user = replace(LEAVE_ONE_OUT, held_out=HeldOut.TEST)
    assert train_lengths(by_user, offsets, timestamp).tolist() == [1, 2, 2, 4]
    by_time = replace(BY_TIME, held_out=HeldOut.TEST)
    assert train_lengths(by_time, offsets, timestamp).tolist() == [1, 2, 3, 4]
    assert target_positions(by_time, Subset.TEST, offsets, timestamp).tolist() == [-1, -1, -1, 4], "still held out"
    for rule in (LEAVE_ONE_OUT, BY_TIME):
        everything = replace(rule, held_out=HeldOut.NOTHING)
        assert train_lengths(everything, offsets, timestamp).tolist() == [1, 2, 3, 5]


def test_a_final_fit_still_refuses_the_test_events():
    by_user, by_time = (replace(rule, held_out=HeldOut.TEST) for rule in (LEAVE_ONE_OUT, BY_TIME))
    refuse_future(by_time, 0, np.array([1]), np.array([2]), np.array([89]))
    with pytest.raises(DataError, match="the test boundary, 90 ms"):
        refuse_future(by_time, 0, np.array([1]), np.array([2]), np.array([90]))
    refuse_future(by_user, 0, np.array([2]), np.array([3]), np.array([5]))
    with pytest.raises(DataError, match="a user's last event"):
        refuse_future(by_user, 0, np.array([3]), np.array([3]), np.array([5]))


def test_without_a_split_nobody_has_a_target():
    rule = SplitRule(Split.NONE, 0, 0, HeldOut.NOTHING)
    offsets, timestamp = jagged([1], [1, 2, 3, 4])
    assert train_lengths(rule, offsets, timestamp).tolist() == [1, 4]
    assert [target_positions(rule, each, offsets, timestamp).tolist() for each in Subset] == [[-1, -1]] * 2
    refuse_future(rule, 0, np.array([4]), np.array([4]), np.array([4]))
