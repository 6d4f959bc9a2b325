"""Metrics are what their definitions say, whatever the order of the users."""

import numpy as np
import pytest

from train.evaluation.metrics import CUTOFFS, metric_names, metric_of, quality_of


def test_one_user_by_hand() -> None:
    quality = quality_of(np.array([3.0]))
    assert quality["hr@1"] == 0
    assert quality["hr@5"] == 1
    assert quality["ndcg@5"] == quality["ndcg@50"] == 0.5
    assert quality["mrr@10"] == pytest.approx(1 / 3)
    assert quality["precision@10"] == pytest.approx(0.1)
    assert quality["recall@10"] == 1
    assert quality["f1@10"] == pytest.approx(2 * 0.1 / 1.1)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_means_equal_a_loop_over_users(cutoff: int) -> None:
    ranks = np.random.default_rng(0).integers(2, 150, size=500) / 2
    hits = [rank for rank in ranks if rank <= cutoff]
    quality = quality_of(ranks)
    assert quality[f"hr@{cutoff}"] == pytest.approx(len(hits) / 500)
    assert quality[f"ndcg@{cutoff}"] == pytest.approx(sum(1 / np.log2(rank + 1) for rank in hits) / 500)
    assert quality[f"mrr@{cutoff}"] == pytest.approx(sum(1 / rank for rank in hits) / 500)


def test_a_metric_by_its_name_is_that_of_the_table_and_is_had_at_any_cutoff() -> None:
    ranks = np.random.default_rng(0).integers(2, 150, size=500) / 2
    assert {name: metric_of(ranks, name) for name in metric_names()} == pytest.approx(quality_of(ranks))
    hits = [rank for rank in ranks if rank <= 7]
    assert metric_of(ranks, "ndcg@7") == pytest.approx(sum(1 / np.log2(rank + 1) for rank in hits) / 500)
    assert metric_of(np.array([2.0, 300.0, np.inf]), "mrr") == pytest.approx((1 / 2 + 1 / 300) / 3)


def test_order_of_users_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(1)
    ranks = rng.integers(1, 100, size=1000).astype(float)
    assert quality_of(ranks) == quality_of(rng.permutation(ranks))


def test_infinite_rank_is_a_miss_everywhere() -> None:
    assert set(quality_of(np.array([np.inf])).values()) == {0.0}


def test_a_tie_with_the_runner_up_is_no_hit_at_one() -> None:
    assert quality_of(np.array([1.5]))["hr@1"] == 0


@pytest.mark.parametrize("ranks", [[], [0.0], [np.nan]])
def test_impossible_ranks_are_refused(ranks: list[float]) -> None:
    with pytest.raises(ValueError, match="rank"):
        quality_of(np.array(ranks))
