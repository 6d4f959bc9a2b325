"""Which users form a step: a pure function of the store's content and the run's choices, never of who asks."""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np

from configs.errors import ConfigError, DataError
from data_pipeline.weights import Weights

SEGMENT_USERS = 1024
"""Users of a full segment; segments start at its multiples, where the store's row groups do."""


@dataclass(frozen=True, slots=True)
class OrderKey:
    """All that the order of users hangs on; equal keys give equal global batches at any world size."""

    fingerprint: str
    split: str
    seed: int
    global_batch_size: int
    num_lanes: int
    window_row_groups: int
    num_users: int


@dataclass(frozen=True, slots=True)
class Window:
    """Segments of one lane whose sequences are shuffled together; places are users, or marks of ``Weights``."""

    segments: list[tuple[int, int]]
    """User ranges [start, end) in the order in which the epoch reads them."""
    start: int
    """Place in the lane's order where the window starts."""
    end: int
    """Place in the lane's order where it ends."""
    key: tuple[object, ...]
    """What its random choices hang on."""

    def permutation(self, num_sequences: int) -> np.ndarray:
        """Order of the window's sequences: place -> index into those of ``segments`` end to end, int64."""
        return permutation(self.key, num_sequences)


class Order:
    """The order of users in every epoch, one lane at a time.

    The users are cut into ``num_lanes`` contiguous ranges. An epoch permutes the segments of a lane and shuffles its
    users within windows of ``window_row_groups`` segments; step k takes the k-th share of every lane's order. Shares
    are equal numbers of users, or with ``weights`` equal weights, in lanes of equal weights: every lane is then cut
    into the same number of steps, and a sequence belongs to the step in which it starts.
    """

    def __init__(self, key: OrderKey, weights: Weights | None = None) -> None:
        if key.num_users < 1:
            raise DataError("the store has no users, so an epoch has no steps; prepare it from a log that has some")
        self.key = key
        self.share = key.global_batch_size // key.num_lanes
        self._weights = weights
        self._lane_bounds = bounds(key.num_users, key.num_lanes)
        self._lane_weights: list[int] = []
        if weights is None:
            self.steps_per_epoch = -(-int(np.diff(self._lane_bounds).max()) // self.share)
        else:
            self._cut_by_weight(weights)

    def _cut_by_weight(self, weights: Weights) -> None:
        if not weights.total:
            raise DataError("no user of the store has an event to learn from; prepare it from a longer log")
        lanes = self.key.num_lanes
        inner = [weights.user_at(-(-weights.total * lane // lanes)) for lane in range(1, lanes)]
        self._lane_bounds = np.array([0, *inner, self.key.num_users])
        self._lane_weights = np.diff([weights.before(int(user)) for user in self._lane_bounds]).tolist()
        self.steps_per_epoch = -(-weights.total // weights.target)

    def windows(self, epoch: int, lane: int) -> list[Window]:
        """The windows of ``lane`` in ``epoch`` that weigh something, in order; reads no events.

        Costs one small permutation.
        """
        key = (self.key, epoch, lane)
        segments = segments_of(*self.range_of(lane))
        shuffled = [segments[index] for index in permutation(key, len(segments))]
        windows: list[Window] = []
        place = 0
        for index, first in enumerate(range(0, len(shuffled), self.key.window_row_groups)):
            members = shuffled[first : first + self.key.window_row_groups]
            end = place + sum(self._size_of(start, end) for start, end in members)
            if end > place:
                windows.append(Window(members, place, end, (*key, index)))
            place = end
        return windows

    def starts(self, lane: int, first: int, end: int) -> np.ndarray:
        """Where the shares of the steps [first, end) of an epoch start in the order of ``lane``, and where the last
        ends: places, int64 [end - first + 1]."""
        if self._weights is None:
            return np.arange(first, end + 1) * self.share
        weight, num_steps = self._lane_weights[lane], self.steps_per_epoch
        return np.array(
            [-(-step * weight // num_steps) for step in range(first, end + 1)]
        )  # int64 may not hold those

    def step_of(self, lane: int, place: int) -> int:
        """The step of an epoch that takes ``place`` of the lane's order."""
        if self._weights is None:
            return place // self.share
        return place * self.steps_per_epoch // self._lane_weights[lane]

    def _size_of(self, start: int, end: int) -> int:
        return end - start if self._weights is None else self._weights.before(end) - self._weights.before(start)

    def range_of(self, lane: int) -> tuple[int, int]:
        """Users [start, end) of ``lane``."""
        return int(self._lane_bounds[lane]), int(self._lane_bounds[lane + 1])

    def lane_of(self, user: np.ndarray) -> np.ndarray:
        """The lane of each user: int64 [B]."""
        return np.searchsorted(self._lane_bounds, user, side="right") - 1

    def users(self, epoch: int, step: int) -> np.ndarray:
        """Users of the global batch of ``step`` (within ``epoch``), before those without targets are dropped.

        Of an order without weights; with them, the lengths of the sequences decide too.
        """
        assert self._weights is None, "users are counted"
        low, high = step * self.share, (step + 1) * self.share
        found: list[np.ndarray] = [np.zeros(0, np.int64)]
        for lane in range(self.key.num_lanes):
            for window in self.windows(epoch, lane):
                if window.start < high and window.end > low:
                    ids = np.concatenate([np.arange(start, end) for start, end in window.segments])
                    shuffled = ids[window.permutation(len(ids))]
                    found.append(shuffled[max(low - window.start, 0) : high - window.start])
        return np.concatenate(found)


def lanes_of(rank: int, world_size: int, num_lanes: int) -> range:
    """The contiguous block of whole lanes that ``rank`` owns; raises where a rank would own none."""
    if world_size > num_lanes:
        raise ConfigError(
            f"data.num_lanes={num_lanes} is less than the number of ranks, {world_size}; a rank owns whole lanes: "
            f"raise data.num_lanes"
        )
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank} must lie in [0, {world_size}), the ranks of the run")
    edges = bounds(num_lanes, world_size)
    return range(int(edges[rank]), int(edges[rank + 1]))


def bounds(count: int, num_parts: int) -> np.ndarray:
    """Edges of ``num_parts`` contiguous parts of ``count`` things, sizes equal or one apart: [num_parts + 1]."""
    return np.arange(num_parts + 1, dtype=np.int64) * count // num_parts


def segments_of(start: int, end: int) -> list[tuple[int, int]]:
    """Users [start, end) cut at the multiples of ``SEGMENT_USERS``."""
    first_cut = (start // SEGMENT_USERS + 1) * SEGMENT_USERS
    edges = [start, *range(first_cut, end, SEGMENT_USERS), end]
    return list(itertools.pairwise(edges)) if start < end else []


def permutation(key: tuple[object, ...], count: int) -> np.ndarray:
    """A permutation of ``count`` that hangs on ``key`` alone.

    It sorts raw words, because NumPy keeps those across versions, but not ``Generator.permutation``.
    """
    return stable_order(random_words(key, count))


def random_words(key: tuple[object, ...], count: int) -> np.ndarray:
    """Uniform words uint64 [count] that hang on ``key`` alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)


def stable_order(words: np.ndarray) -> np.ndarray:
    """``argsort`` of uint64 [N] that keeps equal ones in order; a fourth of a stable sort's time where none are."""
    order = np.argsort(words)
    ascending = words[order]
    has_equal = bool((ascending[1:] == ascending[:-1]).any())
    return np.argsort(words, kind="stable") if has_equal else order
