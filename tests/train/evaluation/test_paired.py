"""Intervals cover the truth and tests raise false alarms as often as they say; both are what brute force gives."""

import itertools

import numpy as np
import pytest

from train.evaluation.bootstrap import bootstrap_intervals
from train.evaluation.metrics import metric_of, user_values
from train.evaluation.paired import cells_of, holm, interval_of_means, paired_differences, randomisation_test

METRICS = ["ndcg@10", "hr@10", "mrr"]
NUM_DATA_SETS = 1000
LEAST, MOST = 0.93, 0.97


def drawn(random: np.random.Generator, num_users: int, skill: float) -> np.ndarray:
    """Ranks of a model: small ones more often the greater ``skill`` is, halves among them as ties give them."""
    ranks = 1 + np.floor(2 * 400 * random.random(num_users) ** skill) / 2
    return np.where(random.random(num_users) < 0.02, np.inf, ranks)


@pytest.mark.slow
@pytest.mark.parametrize(("num_users", "skill"), [(200, 3.0), (1000, 2.0)])
def test_intervals_of_metrics_cover_the_truth(num_users: int, skill: float) -> None:
    random = np.random.default_rng(1)
    population = drawn(random, 10**6, skill)
    truth = {name: metric_of(population, name) for name in ("ndcg@10", "hr@10")}
    hits = dict.fromkeys(truth, 0)
    for number in range(NUM_DATA_SETS):
        found = bootstrap_intervals(drawn(random, num_users, skill), 400, number)
        for name, value in truth.items():
            hits[name] += found[name][0] <= value <= found[name][1]
    for name, count in hits.items():
        assert LEAST <= count / NUM_DATA_SETS <= MOST, (name, count)


@pytest.mark.slow
def test_intervals_of_paired_differences_cover_the_truth() -> None:
    random, names = np.random.default_rng(2), ["ndcg@10", "hr@10"]
    models = [drawn(random, 10**6, skill) for skill in (2.5, 3.0)]
    truth = np.array([metric_of(models[1], name) - metric_of(models[0], name) for name in names])
    hits = np.zeros(len(names))
    for number in range(NUM_DATA_SETS):
        pairs, counts = cells_of(drawn(random, 400, 2.5), drawn(random, 400, 3.0), 10)
        values = np.stack([user_values(pairs[1], name) - user_values(pairs[0], name) for name in names], 1)
        low, high = interval_of_means(values, counts, 300, number)
        hits += (low <= truth) & (truth <= high)
    assert (hits / NUM_DATA_SETS >= LEAST).all()
    assert (hits / NUM_DATA_SETS <= MOST).all()


@pytest.mark.slow
@pytest.mark.parametrize("num_users", [300, 5000], ids=["by flips", "by the normal limit"])
def test_equal_models_are_told_apart_in_a_twentieth_of_all_cases(num_users: int) -> None:
    random, num_pairs = np.random.default_rng(3), 3000
    alarms = 0
    for number in range(num_pairs):
        shared = drawn(random, num_users, 3.0)  # two models agree about most users, as real ones do
        is_own = random.random((2, num_users)) < 0.6
        first, second = (np.where(own, drawn(random, num_users, 3.0), shared) for own in is_own)
        values = user_values(second, "ndcg@10") - user_values(first, "ndcg@10")
        difference, counts = np.unique(values, return_counts=True)
        alarms += randomisation_test(difference, counts, 499, number) <= 0.05
    assert 0.04 <= alarms / num_pairs <= 0.06


def test_the_test_is_that_of_all_flips_of_signs() -> None:
    random = np.random.default_rng(4)
    values = np.round(random.normal(0.2, 0.6, 12), 1)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product([-1, 1], repeat=len(values))]
    exact = np.mean(np.array(sums) >= abs(values.sum()) - 1e-9)
    found = randomisation_test(*np.unique(values, return_counts=True), 40_000, 0)
    assert found == pytest.approx(exact, abs=0.01)
    many = np.tile(values, 100)
    limit = randomisation_test(*np.unique(many * 0.1, return_counts=True), 1, 0)
    assert 0 < limit < 1e-6


def test_the_normal_limit_is_what_flips_give(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(0.05, 1.0, 1500)
    ones = np.ones(len(values), np.int64)
    limit = randomisation_test(values, ones, 1, 0)
    monkeypatch.setattr("train.evaluation.paired.MANY_DIFFERENCES", 10**9)
    assert randomisation_test(values, ones, 20_000, 0) == pytest.approx(limit, abs=0.01)


def test_figures_are_those_of_each_model_alone_whatever_the_order_of_users() -> None:
    random = np.random.default_rng(6)
    first, second = drawn(random, 500, 2.0), drawn(random, 500, 3.0)
    order = random.permutation(500)
    found = paired_differences(first, second, METRICS)
    assert found == paired_differences(first[order], second[order], METRICS)
    for name, each in found.items():
        assert each.first_value == pytest.approx(metric_of(first, name), abs=1e-12)
        assert each.second_value == pytest.approx(metric_of(second, name), abs=1e-12)
        assert each.difference == pytest.approx(each.second_value - each.first_value, abs=1e-12)
        assert each.low < each.difference < each.high
    same = paired_differences(first, first, METRICS)["ndcg@10"]
    assert (same.difference, same.low, same.high, same.p_value, same.num_differing) == (0, 0, 0, 1, 0)


def test_holm_is_what_the_definition_says() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
