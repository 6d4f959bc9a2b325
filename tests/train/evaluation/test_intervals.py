"""Intervals hold the mean, are repeatable, and have the width that theory gives."""

import numpy as np
import pytest

from train.evaluation.bootstrap import bootstrap_intervals
from train.evaluation.metrics import quality_of


def test_every_interval_holds_its_mean() -> None:
    ranks = np.random.default_rng(0).geometric(0.05, size=800).astype(float)
    intervals, quality = bootstrap_intervals(ranks, 500, seed=0), quality_of(ranks)
    assert intervals.keys() == quality.keys()
    for name, (low, high) in intervals.items():
        assert low < quality[name] < high, name


def test_width_is_that_of_a_binomial_share() -> None:
    ranks = np.where(np.arange(1000) < 300, 1.0, np.inf)
    low, high = bootstrap_intervals(ranks, 4000, seed=1)["hr@10"]
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.3 * 0.7 / 1000), rel=0.06)


def test_same_as_drawing_users_one_by_one() -> None:
    rng = np.random.default_rng(2)
    ranks = rng.geometric(0.1, size=200).astype(float)
    direct = [quality_of(rng.choice(ranks, size=200))["ndcg@10"] for _ in range(2000)]
    expected = np.quantile(direct, [0.025, 0.975])
    assert bootstrap_intervals(ranks, 2000, seed=3)["ndcg@10"] == pytest.approx(tuple(expected), abs=0.006)


def test_depends_on_the_seed_and_not_on_the_order() -> None:
    ranks = np.random.default_rng(3).geometric(0.05, size=100).astype(float)
    assert bootstrap_intervals(ranks, 50, seed=4) == bootstrap_intervals(ranks[::-1], 50, seed=4)
    assert bootstrap_intervals(ranks, 50, seed=4) != bootstrap_intervals(ranks, 50, seed=5)


def test_no_user_is_refused() -> None:
    with pytest.raises(ValueError, match="no rank"):
        bootstrap_intervals(np.array([]), 10, seed=0)
