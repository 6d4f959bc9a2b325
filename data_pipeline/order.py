"""Which users form a step: a pure function of the store's content and the run's choices, never of who asks."""

import hashlib
import itertools
from dataclasses import dataclass

import numpy as np

from configs.errors import ConfigError, DataError

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
    """Segments of one lane whose users are shuffled together."""

    segments: list[tuple[int, int]]
    """User ranges [start, end) in the order in which the epoch reads them."""
    start: int
    """Place in the lane's order of the window's first user."""
    end: int
    """Place in the lane's order after the window's last user."""
    permutation_key: tuple[object, ...]

    def permutation(self) -> np.ndarray:
        """Order of the window's users: place -> index into the users of ``segments`` end to end, int64."""
        return permutation(self.permutation_key, self.end - self.start)


class Order:
    """The order of users in every epoch, one lane at a time.

    The users are cut into ``num_lanes`` contiguous ranges. An epoch permutes the segments of a lane and shuffles its
    users within windows of ``window_row_groups`` segments; step k takes the k-th share of every lane's order.
    """

    def __init__(self, key: OrderKey) -> None:
        if key.num_users < 1:
            raise DataError("the store has no users, so an epoch has no steps; prepare it from a log that has some")
        self.key = key
        self.share = key.global_batch_size // key.num_lanes
        self._lane_bounds = bounds(key.num_users, key.num_lanes)
        self.steps_per_epoch = -(-int(np.diff(self._lane_bounds).max()) // self.share)

    def windows(self, epoch: int, lane: int) -> list[Window]:
        """The windows of ``lane`` in ``epoch``, in order; costs one small permutation, reads nothing."""
        key = (self.key, epoch, lane)
        segments = segments_of(*self.range_of(lane))
        shuffled = [segments[index] for index in permutation(key, len(segments))]
        windows: list[Window] = []
        place = 0
        for first in range(0, len(shuffled), self.key.window_row_groups):
            members = shuffled[first : first + self.key.window_row_groups]
            end = place + sum(end - start for start, end in members)
            windows.append(Window(members, place, end, (*key, len(windows))))
            place = end
        return windows

    def step_of(self, window: Window) -> int:
        """The step of the epoch that takes the first user of ``window``."""
        return window.start // self.share

    def range_of(self, lane: int) -> tuple[int, int]:
        """Users [start, end) of ``lane``."""
        return int(self._lane_bounds[lane]), int(self._lane_bounds[lane + 1])

    def users(self, epoch: int, step: int) -> np.ndarray:
        """Users of the global batch of ``step`` (within ``epoch``), before those without targets are dropped."""
        low, high = step * self.share, (step + 1) * self.share
        found: list[np.ndarray] = [np.zeros(0, np.int64)]
        for lane in range(self.key.num_lanes):
            for window in self.windows(epoch, lane):
                if window.start < high and window.end > low:
                    ids = np.concatenate([np.arange(start, end) for start, end in window.segments])
                    shuffled = ids[window.permutation()]
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

    It sorts raw Philox words, because NumPy keeps those across versions, but not ``Generator.permutation``.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(count)
    return np.argsort(words, kind="stable")
