"""Which users form a step: a pure function of the store's content and the run's choices, never of who asks."""

import hashlib
import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from configs.errors import ConfigError, DataError
from data_pipeline.stream.cumulative_weights import CumulativeWeights

SEGMENT_USERS = 1024
"""Users of a full segment; segments start at its multiples, where the store's row groups do."""


@dataclass(frozen=True, slots=True)
class OrderKey:
    """All that the order of users hangs on; equal keys give equal global batches at any world size."""

    fingerprint: str
    split: str
    seed: int
    global_batch_size: int
    num_data_shards: int
    window_segments: int
    num_users: int

    def __repr__(self) -> str:
        # This text is hashed into every permutation. It keeps the field names that the first runs were trained with,
        # so that renaming a field does not change which users form a batch.
        return (
            f"OrderKey(fingerprint={self.fingerprint!r}, split={self.split!r}, seed={self.seed!r}, "
            f"global_batch_size={self.global_batch_size!r}, num_lanes={self.num_data_shards!r}, "
            f"window_row_groups={self.window_segments!r}, num_users={self.num_users!r})"
        )


@dataclass(frozen=True, slots=True)
class Window:
    """Segments of one data shard whose sequences are shuffled together; places are users, or offsets of
    ``CumulativeWeights``."""

    segments: list[tuple[int, int]]
    """User ranges [start, end) in the order in which the epoch reads them."""
    start: int
    """Place in the data shard's order where the window starts."""
    end: int
    """Place in the data shard's order where it ends."""
    key: tuple[object, ...]
    """What its random choices hang on."""

    def permutation(self, num_sequences: int) -> np.ndarray:
        """Order of the window's sequences: place -> index into those of ``segments`` end to end, int64."""
        return permutation(self.key, num_sequences)


class Order:
    """The order of users in every epoch, one data shard at a time.

    The users are cut into ``num_data_shards`` contiguous ranges. An epoch permutes the segments of a data shard and
    shuffles its users within windows of ``window_segments`` segments; step k takes the k-th share of every data
    shard's order. Shares are equal numbers of users, or with ``weights`` equal weights, in data shards of equal
    weights: every data shard is then cut into the same number of steps, and a sequence belongs to the step in which
    it starts.
    """

    def __init__(self, key: OrderKey, weights: CumulativeWeights | None = None) -> None:
        if key.num_users < 1:
            raise DataError("the store has no users, so an epoch has no steps; prepare it from a log that has some")
        self.key = key
        self.share = key.global_batch_size // key.num_data_shards
        self._weights = weights
        self._shard_bounds = bounds(key.num_users, key.num_data_shards)
        self._shard_weights: list[int] = []
        if weights is None:
            self.steps_per_epoch = -(-int(np.diff(self._shard_bounds).max()) // self.share)
        else:
            self._cut_by_weight(weights)

    def _cut_by_weight(self, weights: CumulativeWeights) -> None:
        if not weights.total:
            raise DataError("no user of the store has an event to learn from; prepare it from a longer log")
        shards = self.key.num_data_shards
        inner = [weights.user_at_offset(-(-weights.total * shard // shards)) for shard in range(1, shards)]
        self._shard_bounds = np.array([0, *inner, self.key.num_users])
        self._shard_weights = np.diff([weights.weight_before(int(user)) for user in self._shard_bounds]).tolist()
        self.steps_per_epoch = -(-weights.total // weights.target)

    def windows(self, epoch: int, shard: int) -> list[Window]:
        """The windows of ``shard`` in ``epoch`` that weigh something, in order; reads no events.

        Costs one small permutation.
        """
        key = (self.key, epoch, shard)
        segments = segments_of(*self.range_of(shard))
        shuffled = [segments[index] for index in permutation(key, len(segments))]
        windows: list[Window] = []
        place = 0
        for index, first in enumerate(range(0, len(shuffled), self.key.window_segments)):
            members = shuffled[first : first + self.key.window_segments]
            end = place + sum(self._size_of(start, end) for start, end in members)
            if end > place:
                windows.append(Window(members, place, end, (*key, index)))
            place = end
        return windows

    def starts(self, shard: int, first: int, end: int) -> np.ndarray:
        """Where the shares of the steps [first, end) of an epoch start in the order of ``shard``, and where the last
        ends: places, int64 [end - first + 1]."""
        if self._weights is None:
            return np.arange(first, end + 1) * self.share
        weight, num_steps = self._shard_weights[shard], self.steps_per_epoch
        return np.array(
            [-(-step * weight // num_steps) for step in range(first, end + 1)]
        )  # int64 may not hold those

    def step_of(self, shard: int, place: int) -> int:
        """The step of an epoch that takes ``place`` of the data shard's order."""
        if self._weights is None:
            return place // self.share
        return place * self.steps_per_epoch // self._shard_weights[shard]

    def _size_of(self, start: int, end: int) -> int:
        return (
            end - start
            if self._weights is None
            else self._weights.weight_before(end) - self._weights.weight_before(start)
        )

    def range_of(self, shard: int) -> tuple[int, int]:
        """Users [start, end) of ``shard``."""
        return int(self._shard_bounds[shard]), int(self._shard_bounds[shard + 1])

    def shard_of(self, user: np.ndarray) -> np.ndarray:
        """The data shard of each user: int64 [B]."""
        return np.searchsorted(self._shard_bounds, user, side="right") - 1

    def users(self, epoch: int, step: int) -> np.ndarray:
        """Users of the global batch of ``step`` (within ``epoch``), before those without targets are dropped.

        Of an order without weights; with them, the lengths of the sequences decide too.
        """
        assert self._weights is None, "users are counted"
        low, high = step * self.share, (step + 1) * self.share
        found: list[np.ndarray] = [np.zeros(0, np.int64)]
        for shard in range(self.key.num_data_shards):
            for window in self.windows(epoch, shard):
                if window.start < high and window.end > low:
                    ids = np.concatenate([np.arange(start, end) for start, end in window.segments])
                    shuffled = ids[window.permutation(len(ids))]
                    found.append(shuffled[max(low - window.start, 0) : high - window.start])
        return np.concatenate(found)


class ShardPart(NamedTuple):
    """What a rank takes of every step's share of one data shard: from ``first`` / ``num_parts`` of the share to
    ``end`` / ``num_parts`` of it."""

    shard: int
    first: int = 0
    end: int = 1
    num_parts: int = 1

    def cut(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the part starts and ends in shares that start at ``low`` and end at ``high``; all int64 [S]."""
        size = high - low
        return low + size * self.first // self.num_parts, low + size * self.end // self.num_parts


def parts_of_rank(rank: int, world_size: int, num_data_shards: int) -> list[ShardPart]:
    """What ``rank`` takes of the data shards; over all ranks, in rank order, every share once.

    Up to ``num_data_shards`` ranks own whole data shards and read their own bytes alone. More ranks share them out
    evenly: each then reads the whole of the one or two data shards that it takes a part of.
    """
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank} must lie in [0, {world_size}), the ranks of the run")
    if world_size <= num_data_shards:
        edges = bounds(num_data_shards, world_size)
        return [ShardPart(shard) for shard in range(int(edges[rank]), int(edges[rank + 1]))]
    # In units of 1 / world_size of a data shard, a rank owns num_data_shards units and a data shard has world_size.
    low, high = rank * num_data_shards, (rank + 1) * num_data_shards
    return [
        ShardPart(shard, max(low - shard * world_size, 0), min(high - shard * world_size, world_size), world_size)
        for shard in range(low // world_size, -(-high // world_size))
    ]


def bounds(count: int, num_parts: int) -> np.ndarray:
    """Edges of ``num_parts`` contiguous parts of ``count`` things, sizes equal or one apart: [num_parts + 1]."""
    return np.arange(num_parts + 1, dtype=np.int64) * count // num_parts


def segments_of(start: int, end: int) -> list[tuple[int, int]]:
    """Users [start, end) cut at the multiples of ``SEGMENT_USERS``."""
    first_cut = (start // SEGMENT_USERS + 1) * SEGMENT_USERS
    edges = [start, *range(first_cut, end, SEGMENT_USERS), end]
    return list(itertools.pairwise(edges)) if start < end else []


def segments_in(num_users: int) -> int:
    """The fewest segments that hold ``num_users``."""
    return -(-num_users // SEGMENT_USERS)


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
