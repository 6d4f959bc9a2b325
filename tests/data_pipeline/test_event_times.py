"""Quantiles of times are those of the sorted times, whatever is in them; outliers are what lies far from the rest."""

from collections.abc import Iterator

import numpy as np
import pytest

from configs.errors import DataError
from data_pipeline.store.event_times import Outliers, TimeBoundary, time_quantiles

DAY_MS = 86_400_000


def quantiles(times: np.ndarray, fractions: list[float]) -> tuple[list[TimeBoundary], Outliers | None]:
    """Of ``times``, read in parts of seven events."""

    def parts() -> Iterator[np.ndarray]:
        yield from np.split(times, range(7, len(times), 7))

    return time_quantiles(parts, int(times.min()), int(times.max()), fractions)


LOGS = {
    "spread": lambda draw: draw.integers(0, 4_000_000_000_000, 500),
    "ties": lambda draw: draw.integers(0, 12, 400) * DAY_MS,
    "narrow": lambda draw: 1_600_000_000_000 + draw.integers(0, 50, 300),
    "wrong clocks": lambda draw: np.concatenate(
        [draw.integers(1_600_000_000_000, 1_601_000_000_000, 300), [0, 1, 4_070_908_800_000]]
    ),
    "far future": lambda draw: np.concatenate([draw.integers(0, 1000, 300), [2**62]]),
}


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("fraction", [0.01, 0.29, 0.5, 0.8, 0.9, 0.99])
def test_the_boundary_is_that_of_the_sorted_times(log: str, fraction: float):
    times = LOGS[log](np.random.default_rng(5))
    (boundary,), _ = quantiles(times, [fraction])
    ordered, rank = np.sort(times), round(len(times) * fraction)
    assert boundary.num_before == (times < boundary.time_ms).sum()
    before, through = (ordered < ordered[rank]).sum(), (ordered <= ordered[rank]).sum()
    assert boundary.num_before in (before, through), "events of one time stay together"
    assert boundary.num_tied == through - before
    nearest = min([side for side in (before, through) if 0 < side < len(times)], key=lambda side: abs(side - rank))
    assert abs(boundary.num_before - rank) == abs(nearest - rank)


def test_a_wrong_clock_moves_a_boundary_by_one_event_at_most():
    times = np.random.default_rng(0).integers(1_262_304_000_000, 1_735_689_600_000, 4000)
    ordered = np.sort(times)
    for wrong in (0, 4_070_908_800_000):
        (boundary,), _ = quantiles(np.append(times[:-1], wrong), [0.8])
        assert ordered[3198] <= boundary.time_ms <= ordered[3202]


@pytest.mark.parametrize(
    ("wrong", "early", "late"), [([0] * 4, 4, 0), ([4_070_908_800_000], 0, 1), ([0, 2**42], 1, 1)]
)
def test_events_far_from_the_rest_are_counted(wrong: list[int], early: int, late: int):
    right = np.random.default_rng(0).integers(1_262_304_000_000, 1_735_689_600_000, 1000)
    _, outliers = quantiles(np.append(right, wrong), [0.5])
    assert outliers is not None
    assert (outliers.num_early, outliers.num_late) == (early, late)
    assert outliers.first_ms <= right.min()
    assert outliers.last_ms >= right.max()


@pytest.mark.parametrize("log", ["spread", "ties", "narrow"])
def test_a_log_without_a_gap_has_no_outliers(log: str):
    assert quantiles(LOGS[log](np.random.default_rng(1)), [0.5])[1] is None


def test_a_log_that_grows_has_no_outliers():
    times = (1e12 + 1e11 * np.random.default_rng(2).random(5000) ** 0.1).astype(np.int64)
    assert quantiles(times, [0.5])[1] is None


def test_times_outside_of_the_span_are_refused():
    with pytest.raises(DataError, match="outside the time span"):
        time_quantiles(lambda: iter([np.array([5, 999_999])]), 0, 10, [0.5])
