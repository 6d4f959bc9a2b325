"""Training events of a window of users, shuffled once so that a batch is a slice of it."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data_pipeline.order import Window
from data_pipeline.reader import Histories, HistoryReader
from data_pipeline.split import SplitRule, refuse_future, train_lengths

CACHE_BYTES = 256 * 2**20
"""Decoded training events kept over epochs; a small store (ML-1M takes 12 MB) is decoded once."""
MIN_TRAIN_EVENTS = 2
"""An event to start from and one to predict."""
BYTES_PER_ROW = 16
"""User and length."""
BYTES_PER_EVENT = 16
"""Item and time at most."""

Segment = tuple[int, int]
"""Users [start, end)."""


@dataclass(slots=True)
class TrainHistories:
    """Cut histories end to end; a user with nothing to predict has length 0."""

    user: np.ndarray
    lengths: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return self.user.nbytes + self.lengths.nbytes + self.item.nbytes + self.timestamp.nbytes

    def rows(self, start: int, end: int, offsets: np.ndarray) -> "TrainHistories":
        """Users at places [start, end), given the running sums of ``lengths``; views, no copy."""
        events = slice(offsets[start], offsets[end])
        return TrainHistories(
            self.user[start:end], self.lengths[start:end], self.item[events], self.timestamp[events]
        )


class TrainSegments:
    """Training histories of segments, over a cache of them; safe to use from several threads."""

    def __init__(self, reader: HistoryReader, rule: SplitRule, max_history: int) -> None:
        self._reader, self._rule, self._max_history = reader, rule, max_history
        self._segments: OrderedDict[tuple[int, int], TrainHistories] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def segment(self, segment: Segment) -> TrainHistories:
        """The users of ``segment`` in user order, each with its last ``max_history + 1`` training events."""
        with self._lock:
            if segment in self._segments:
                self._segments.move_to_end(segment)
                return self._segments[segment]
        histories = train_histories(self._reader.read(*segment), self._rule, self._max_history)
        with self._lock:
            if segment not in self._segments:
                self._segments[segment] = histories
                self._num_bytes += histories.num_bytes
            while self._num_bytes > CACHE_BYTES:
                self._num_bytes -= self._segments.popitem(last=False)[1].num_bytes
        return histories

    def bytes_at_most(self, segment: Segment) -> int:
        """Memory that :meth:`segment` needs at most: the decoded row groups and what is cut out of them."""
        decoded = self._reader.num_bytes_decoded(*segment)
        num_users, num_events = segment[1] - segment[0], self._reader.num_events_bound(*segment)
        return decoded + BYTES_PER_ROW * num_users + BYTES_PER_EVENT * num_events


def shuffled_histories(window: Window, take: Callable[[Segment], TrainHistories]) -> TrainHistories:
    """The users of ``window`` in their shuffled order; ``take`` gives those of a segment."""
    joined = joined_histories([take(segment) for segment in window.segments])
    order = window.permutation()
    offsets = offsets_of(joined.lengths)
    lengths = joined.lengths[order]
    events = ragged_index(offsets[:-1][order], lengths)
    return TrainHistories(joined.user[order], lengths, joined.item[events], joined.timestamp[events])


def train_histories(histories: Histories, rule: SplitRule, max_history: int) -> TrainHistories:
    """What training may see of ``histories``: of each user the last ``max_history + 1`` training events."""
    offsets, first_user = histories.offsets, histories.first_user
    ends = train_lengths(rule, offsets, histories.timestamp)
    lengths = np.minimum(ends, max_history + 1)
    lengths[ends < MIN_TRAIN_EVENTS] = 0
    events = ragged_index(offsets[:-1] + ends - lengths, lengths)
    timestamp = histories.timestamp[events]
    refuse_future(rule, first_user, ends, np.diff(offsets), timestamp)
    user = np.arange(first_user, first_user + len(ends))
    return TrainHistories(user, lengths, histories.item[events], timestamp)


def joined_histories(parts: list[TrainHistories]) -> TrainHistories:
    """``parts`` end to end; no part makes no users."""
    if len(parts) == 1:
        return parts[0]
    empty = np.zeros(0, np.int64)
    return TrainHistories(
        *(
            np.concatenate([getattr(part, name) for part in parts]) if parts else empty
            for name in ("user", "lengths", "item", "timestamp")
        )
    )


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Running sums with a leading zero: int64 [B + 1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ragged_index(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Places ``start, start + 1, ...`` of every row, end to end: int64 [sum of lengths]."""
    offsets = offsets_of(lengths)
    index = np.arange(offsets[-1])
    index += np.repeat(starts - offsets[:-1], lengths)
    return index
