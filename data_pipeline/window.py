"""Training events of a window of users, shuffled once so that a batch is a slice of it."""

import threading
from dataclasses import dataclass, field

import numpy as np

from data_pipeline.order import Window
from data_pipeline.ragged import offsets_of, ragged_index
from data_pipeline.reader import Histories, HistoryReader
from data_pipeline.sequences import SequenceRule
from data_pipeline.split import SplitRule, refuse_future, train_lengths

CACHE_BYTES = 256 * 2**20
"""Training events kept over epochs, those that come first; a small store (ML-1M takes 12 MB) is decoded once.

Of a larger store the same ones stay: an epoch reads each segment once, so that the one used last comes again no
sooner than any other, and one that left to make room would leave memory to be had anew.
"""
BYTES_PER_SEQUENCE = 16
"""User and length."""
BYTES_PER_EVENT = 16
"""Item and time at most."""
BYTES_PER_FEATURE = 4

Segment = tuple[int, int]
"""Users [start, end)."""


@dataclass(slots=True)
class TrainHistories:
    """Training sequences end to end, one a user or several; one with nothing to predict has length 0."""

    user: np.ndarray
    lengths: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    features: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        arrays = (self.user, self.lengths, self.item, self.timestamp, *self.features.values())
        return sum(array.nbytes for array in arrays)

    def cut(self, rows: slice, events: slice) -> "TrainHistories":
        """The sequences ``rows``, whose events are ``events``; views, no copy."""
        features = _taken(self.features, events)
        return TrainHistories(
            self.user[rows], self.lengths[rows], self.item[events], self.timestamp[events], features
        )


class TrainSegments:
    """Training histories of segments, over a cache of them; safe to use from several threads."""

    def __init__(self, reader: HistoryReader, rule: SplitRule, sequences: SequenceRule) -> None:
        self._reader, self._rule, self._sequences = reader, rule, sequences
        self._segments: dict[Segment, TrainHistories] = {}
        self._num_bytes = 0
        self._lock = threading.Lock()

    def segment(self, segment: Segment) -> TrainHistories:
        """The training sequences of ``segment`` in user order."""
        kept = self._segments.get(segment)
        if kept is not None:
            return kept
        histories = train_histories(self._reader.read(*segment), self._rule, self._sequences)
        with self._lock:
            fits = self._num_bytes + histories.num_bytes <= CACHE_BYTES
            if fits and segment not in self._segments:
                self._segments[segment] = histories
                self._num_bytes += histories.num_bytes
        return histories

    def shuffled(self, window: Window) -> TrainHistories:
        """The sequences of ``window`` in their shuffled order."""
        joined = joined_histories([self.segment(segment) for segment in window.segments])
        order = window.permutation(len(joined.lengths))
        offsets = offsets_of(joined.lengths)
        lengths = joined.lengths[order]
        events = ragged_index(offsets[:-1][order], lengths)
        features = _taken(joined.features, events)
        return TrainHistories(joined.user[order], lengths, joined.item[events], joined.timestamp[events], features)

    def bytes_at_most(self, window: Window) -> int:
        """Memory that :meth:`shuffled` needs at most: the decoded row groups of a segment, and what is cut out of all
        of them, once as they come, joined, shuffled, and as the places of the events."""
        decoded = max(self._reader.num_bytes_decoded(*segment) for segment in window.segments)
        return decoded + 4 * sum(map(self._cut_bytes_at_most, window.segments))

    def _cut_bytes_at_most(self, segment: Segment) -> int:
        num_sequences, num_tokens = self._sequences.at_most(
            segment[1] - segment[0], self._reader.num_events_bound(*segment)
        )
        bytes_per_event = BYTES_PER_EVENT + BYTES_PER_FEATURE * len(self._reader.feature_types)
        return BYTES_PER_SEQUENCE * num_sequences + bytes_per_event * num_tokens


def train_histories(histories: Histories, rule: SplitRule, sequences: SequenceRule) -> TrainHistories:
    """What training may see of ``histories``: the sequences of each user's training events."""
    offsets, first_user = histories.offsets, histories.first_user
    ends = train_lengths(rule, offsets, histories.timestamp)
    row, starts, lengths = sequences.cut(offsets[:-1], ends)
    events = ragged_index(starts, lengths)
    timestamp = histories.timestamp[events]
    refuse_future(rule, first_user, ends, np.diff(offsets), timestamp)
    features = _taken(histories.features, events)
    return TrainHistories(row + first_user, lengths, histories.item[events], timestamp, features)


def joined_histories(parts: list[TrainHistories]) -> TrainHistories:
    """``parts`` end to end; no part makes no users."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        empty = np.zeros(0, np.int64)
        return TrainHistories(empty, empty, empty, empty)
    return TrainHistories(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features},
    )


def _taken(features: dict[str, np.ndarray], events: np.ndarray | slice) -> dict[str, np.ndarray]:
    return {name: values[events] for name, values in features.items()}
