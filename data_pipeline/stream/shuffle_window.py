"""Training events of a window of users, shuffled once so that a batch is a slice of it."""

import threading
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from data_pipeline.split import SplitRule, refuse_future, train_lengths, training_view
from data_pipeline.store.history_reader import Histories, HistoryReader
from data_pipeline.stream.jagged import jagged_index, offsets_of
from data_pipeline.stream.order import Window
from data_pipeline.stream.sequences import SequenceRule

CACHE_BYTES = 256 * 2**20
"""Training events kept over epochs, those that come first; a small store (ML-1M takes 12 MB) is decoded once.

Of a larger store the same ones stay: an epoch reads each segment once, so that the one used last comes again no
sooner than any other, and one that left to make room would leave memory to be had anew.
"""
MIN_USED_FRACTION = 0.75
"""Of the bytes of decoded row groups; where training sees less of them, its events are copied out of them: what waits
for its window takes at most a third more than what is used. Leave-one-out of 10 events a user uses so much."""
BYTES_PER_SEQUENCE = 32
"""User, start, length, and one more while they are worked out."""
BYTES_PER_EVENT = 16
"""Item and time at most."""
BYTES_PER_FEATURE = 4
BYTES_PER_CHOICE = 32
"""Of an event, while a split chooses those for training one by one."""

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


class Share(NamedTuple):
    """What S steps take of a window: step s the sequences ``rows.first[s]`` to ``rows.end[s]``, and their events."""

    histories: TrainHistories
    rows: "Ranges"
    """Of sequences; those with nothing to predict count."""
    events: "Ranges"
    """Of the events of ``rows``."""


class Ranges(NamedTuple):
    """S ranges of places [first, end); all int64 [S]."""

    first: np.ndarray
    end: np.ndarray


@dataclass(slots=True)
class Sequences:
    """Training sequences of a segment in user order, which lie somewhere in arrays of events."""

    user: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    features: dict[str, np.ndarray]

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        arrays = (self.user, self.starts, self.lengths, self.item, self.timestamp, *self.features.values())
        return sum(array.nbytes for array in arrays)

    @property
    def num_bytes_used(self) -> int:
        """Memory of the events that are in a sequence."""
        bytes_per_event = sum(array.itemsize for array in (self.item, self.timestamp, *self.features.values()))
        return int(self.lengths.sum()) * bytes_per_event

    def taken(self, order: np.ndarray | slice) -> TrainHistories:
        """The sequences ``order``, end to end."""
        lengths = self.lengths[order]
        events = jagged_index(self.starts[order], lengths)
        features = _taken(self.features, events)
        return TrainHistories(self.user[order], lengths, self.item[events], self.timestamp[events], features)

    def without_gaps(self) -> "Sequences":
        """The same in arrays that hold nothing else."""
        own = self.taken(slice(None))
        starts = offsets_of(own.lengths)[:-1]
        return Sequences(own.user, starts, own.lengths, own.item, own.timestamp, own.features)


class TrainSegments:
    """Training sequences of segments, over a cache of them; safe to use from several threads."""

    def __init__(self, reader: HistoryReader, rule: SplitRule, sequences: SequenceRule) -> None:
        self._reader, self._rule, self._sequences = reader, rule, sequences
        self._segments: dict[Segment, Sequences] = {}
        self._num_bytes = 0
        self._lock = threading.Lock()

    def segment(self, segment: Segment) -> Sequences:
        """The training sequences of ``segment``.

        In the arrays that were decoded, where those hold little else: a window copies what it takes in any case.
        """
        kept = self._segments.get(segment)
        if kept is not None:
            return kept
        found = train_sequences(self._reader.read(*segment), self._rule, self._sequences)
        num_bytes = self._reader.num_bytes_decoded(*segment)  # all of it lives as long as a part
        if found.num_bytes_used < MIN_USED_FRACTION * num_bytes:
            found = found.without_gaps()
            num_bytes = found.num_bytes
        with self._lock:
            if self._num_bytes + num_bytes <= CACHE_BYTES and segment not in self._segments:
                self._segments[segment] = found
                self._num_bytes += num_bytes
        return found

    def shuffled(self, window: Window) -> TrainHistories:
        """The sequences of ``window`` in their shuffled order."""
        joined = joined_sequences([self.segment(segment) for segment in window.segments])
        return joined.taken(window.permutation(len(joined.lengths)))

    def bytes_at_most(self, window: Window) -> int:
        """Memory that :meth:`shuffled` needs at most: a segment while it is read, and what is used of all of them,
        as they come (a third more), joined, as the places of the events, and shuffled."""
        read = max(self._reader.num_bytes_at_most(*each) + self._view_bytes_at_most(each) for each in window.segments)
        return read + 4 * sum(map(self._cut_bytes_at_most, window.segments))

    def _cut_bytes_at_most(self, segment: Segment) -> int:
        num_sequences, num_tokens = self._sequences.at_most(
            segment[1] - segment[0], self._reader.num_events_bound(*segment)
        )
        return BYTES_PER_SEQUENCE * num_sequences + self._bytes_per_event * num_tokens

    def _view_bytes_at_most(self, segment: Segment) -> int:
        """Of the copy that :func:`training_view` makes where items are held out."""
        if self._rule.cold is None:
            return 0
        return (self._bytes_per_event + BYTES_PER_CHOICE) * self._reader.num_events_bound(*segment)

    @property
    def _bytes_per_event(self) -> int:
        return BYTES_PER_EVENT + BYTES_PER_FEATURE * len(self._reader.feature_types)


def train_sequences(histories: Histories, rule: SplitRule, sequences: SequenceRule) -> Sequences:
    """What training may see of ``histories``: the sequences of each user's training events, where they lie."""
    histories = training_view(rule, histories)
    offsets, first_user = histories.offsets, histories.first_user
    ends = train_lengths(rule, offsets, histories.timestamp)
    row, starts, lengths = sequences.cut(offsets[:-1], ends)
    last = (starts + lengths - 1)[lengths > 0]  # the latest of a sequence: the reader refuses times that go back
    refuse_future(rule, first_user, ends, np.diff(offsets), histories.timestamp[last])
    return Sequences(row + first_user, starts, lengths, histories.item, histories.timestamp, histories.features)


def joined_sequences(parts: list[Sequences]) -> Sequences:
    """``parts`` in one; no part makes no users."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        empty = np.zeros(0, np.int64)
        return Sequences(empty, empty, empty, empty, empty, {})
    places = offsets_of(np.array([len(part.item) for part in parts]))
    return Sequences(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.starts + place for part, place in zip(parts, places[:-1], strict=True)]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features},
    )


def _taken(features: dict[str, np.ndarray], events: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[events] for name, values in features.items()}
