"""Exact quantiles of the times of a store's events, out of core, and the events whose times lie far from the rest.

A histogram of the time span says in which bucket a quantile lies; further passes look into that bucket alone, until
it is one millisecond wide. N events, three passes or so, and 2 ** 16 counters for each quantile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from configs.errors import DataError

NUM_BUCKETS = 2**16
TAIL = 0.025
"""Share of the events at each end that may be outliers; what lies between is the bulk."""
MIN_EVENTS_TO_JUDGE = 20
"""Of fewer events nobody can say which of them is far from the rest."""

Times = Callable[[], Iterator[np.ndarray]]
"""Makes one pass over the times of all events: int64 [T] each, in any order."""


@dataclass(frozen=True, slots=True)
class TimeBoundary:
    """A point in time, and how the events lie around it."""

    time_ms: int
    """The first millisecond after the boundary."""
    num_before: int
    """Events before it."""
    num_tied: int
    """Events of the millisecond that the quantile falls into; they stay together."""


@dataclass(frozen=True, slots=True)
class Outliers:
    """Events before ``first_ms`` or after ``last_ms``, where the bulk of the events lies: counts and extremes."""

    num_early: int
    num_late: int
    earliest_ms: int
    latest_ms: int
    first_ms: int
    last_ms: int


def time_quantiles(
    times: Times, first_ms: int, last_ms: int, fractions: list[float]
) -> tuple[list[TimeBoundary], Outliers | None]:
    """The boundary before which each of ``fractions`` of the events lies, and the outliers, None if there are none.

    ``first_ms`` and ``last_ms`` are the times of the first and of the last event; :class:`DataError` where an event
    lies outside of them. Events of one millisecond are never parted: the boundary lies before or after them, where
    it comes nearer to the fraction, but never before the first event or after the last.
    """
    coarse = _histograms(times, [(first_ms, _bucket_width(first_ms, last_ms))])[0]
    if coarse.outside:
        raise DataError(f"{coarse.outside} events are outside the time span of the manifest")
    num_events = int(coarse.counts.sum())
    found = [_Search(coarse, round(num_events * fraction)) for fraction in fractions]
    while any(search.width > 1 for search in found):
        finer = _histograms(times, [search.bucket() for search in found])
        found = [search.refined(histogram) for search, histogram in zip(found, finer, strict=True)]
    return [search.boundary(num_events) for search in found], _outliers(coarse, first_ms, last_ms)


@dataclass(frozen=True, slots=True)
class _Histogram:
    start_ms: int
    width: int
    counts: np.ndarray  # int64 [NUM_BUCKETS]
    outside: int


class _Search:
    """The event of place ``rank`` in order of time: which bucket holds it, and how many events lie before that."""

    def __init__(self, histogram: _Histogram, rank: int, before: int = 0) -> None:
        cumulative = np.cumsum(histogram.counts)
        place = int(np.searchsorted(cumulative, rank - before, side="right"))
        place = min(place, int(np.flatnonzero(histogram.counts)[-1]))  # the fraction is that of all events
        self.rank, self.width = rank, histogram.width
        self.start_ms = histogram.start_ms + place * histogram.width
        self.num_in_bucket = int(histogram.counts[place])
        self.num_before = before + int(cumulative[place]) - self.num_in_bucket

    def bucket(self) -> tuple[int, int]:
        """Start, and the width of the buckets that the next pass cuts it into."""
        return self.start_ms, _bucket_width(self.start_ms, self.start_ms + self.width - 1)

    def refined(self, histogram: _Histogram) -> "_Search":
        """The same search in a pass over its bucket."""
        return self if self.width == 1 else _Search(histogram, self.rank, self.num_before)

    def boundary(self, num_events: int) -> TimeBoundary:
        through = self.num_before + self.num_in_bucket
        is_before_nearer = self.rank - self.num_before <= through - self.rank
        if through == num_events or (is_before_nearer and self.num_before > 0):
            return TimeBoundary(self.start_ms, self.num_before, self.num_in_bucket)
        return TimeBoundary(self.start_ms + 1, through, self.num_in_bucket)


def _bucket_width(first_ms: int, last_ms: int) -> int:
    return -(-(last_ms - first_ms + 1) // NUM_BUCKETS)


def _histograms(times: Times, ranges: list[tuple[int, int]]) -> list[_Histogram]:
    """One pass: the events in the ``NUM_BUCKETS`` buckets of each range, given by its start and their width."""
    counts = [np.zeros(NUM_BUCKETS, np.int64) for _ in ranges]
    outside = [0] * len(ranges)
    for part in times():
        for index, (start_ms, width) in enumerate(ranges):
            bucket = (part - start_ms) // width
            inside = bucket[(bucket >= 0) & (bucket < NUM_BUCKETS)]
            outside[index] += len(part) - len(inside)
            counts[index] += np.bincount(inside, minlength=NUM_BUCKETS)
    return [_Histogram(*bounds, count, out) for bounds, count, out in zip(ranges, counts, outside, strict=True)]


def _outliers(coarse: _Histogram, first_ms: int, last_ms: int) -> Outliers | None:
    """Events of the outer ``TAIL`` that a gap longer than the span of the bulk parts from it."""
    num_events = int(coarse.counts.sum())
    if num_events < MIN_EVENTS_TO_JUDGE:
        return None
    filled = np.flatnonzero(coarse.counts)
    until = np.cumsum(coarse.counts[filled])
    num_in_tail = max(int(TAIL * num_events), 1)
    low = int(np.searchsorted(until, num_in_tail, side="right"))
    high = int(np.searchsorted(until, num_events - num_in_tail))
    span = filled[high] - filled[low] + 1
    gaps = np.diff(filled) - 1  # whole empty buckets: at least so long
    early = [place for place in range(low) if gaps[place] > span]
    late = [place for place in range(high, len(gaps)) if gaps[place] > span]
    first, last = (early[-1] + 1 if early else 0), (late[0] if late else len(filled) - 1)
    if first == 0 and last == len(filled) - 1:
        return None
    return Outliers(
        num_early=int(until[first - 1]) if first else 0,
        num_late=num_events - int(until[last]),
        earliest_ms=first_ms,
        latest_ms=last_ms,
        first_ms=coarse.start_ms + int(filled[first]) * coarse.width,
        last_ms=coarse.start_ms + (int(filled[last]) + 1) * coarse.width - 1,
    )
