"""Ranking metrics of one relevant item a user, from the rank of that item alone."""

import numpy as np

CUTOFFS = (1, 5, 10, 20, 50)


def quality_of(ranks: np.ndarray) -> dict[str, float]:
    """Mean metrics over users: ``hr``, ``ndcg``, ``mrr``, ``precision``, ``recall`` and ``f1`` at each cutoff.

    ``ranks`` [N] is the 1-based rank of each user's target (candidates with a strictly greater score, plus half of
    the equal ones: may be fractional); infinity is a miss at every cutoff. The result does not depend on the order
    of ``ranks``, to the last bit, so it is the same at any world size.

    Raises ValueError when there is no user or a rank below 1 (or NaN), which no ranking can give.
    """
    values, counts = rank_histogram(ranks)
    means = counts @ values_at_cutoffs(values) / counts.sum()
    return dict(zip(metric_names(), means.tolist(), strict=True))


def metric_names() -> list[str]:
    """Names such as ``ndcg@10``, in the column order of :func:`values_at_cutoffs`."""
    return [f"{name}@{cutoff}" for cutoff in CUTOFFS for name in ("hr", "ndcg", "mrr", "precision", "recall", "f1")]


def rank_histogram(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct ranks ascending, those beyond the last cutoff as one infinity, and the number of users at each."""
    ranks = np.asarray(ranks, dtype=np.float64)
    if ranks.size == 0:
        raise ValueError("there is no rank to average: the subset has no evaluable user")
    if not (ranks >= 1).all():
        raise ValueError("every rank must be at least 1 and not NaN")
    return np.unique(np.where(ranks > CUTOFFS[-1], np.inf, ranks), return_counts=True)


def values_at_cutoffs(ranks: np.ndarray) -> np.ndarray:
    """[N, M] what a user with each of ``ranks`` [N] adds to each of the M :func:`metric_names`."""
    discount, reciprocal = 1 / np.log2(ranks + 1), 1 / ranks
    columns = []
    for cutoff in CUTOFFS:
        hit = (ranks <= cutoff).astype(np.float64)
        columns += [hit, hit * discount, hit * reciprocal, hit / cutoff, hit, 2 * hit / (cutoff + 1)]
    return np.stack(columns, axis=1)
