"""Ranking metrics of one relevant item a user, from the rank of that item alone."""

from collections.abc import Sequence

import numpy as np

from configs.schema.evaluation import RANK_METRICS

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
    return [f"{name}@{cutoff}" for cutoff in CUTOFFS for name in RANK_METRICS]


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
    return np.concatenate([_values_at(ranks, cutoff) for cutoff in CUTOFFS], axis=1)


def metric_of(ranks: np.ndarray, name: str) -> float:
    """The mean over users of one metric by its name: at any cutoff, such as ``ndcg@7``, or ``mrr`` over all ranks.

    As :func:`quality_of`, the same to the last bit in whatever order ``ranks`` [N] come.
    """
    values, counts = np.unique(np.asarray(ranks, dtype=np.float64), return_counts=True)
    return float(counts @ user_values(values, name) / counts.sum())


def user_values(ranks: np.ndarray, name: str) -> np.ndarray:
    """[N] what each user with ``ranks`` [N] has of the metric ``name``, as :func:`metric_of` takes it."""
    kind, _, cutoff = name.partition("@")
    return _values_at(ranks, int(cutoff))[:, RANK_METRICS.index(kind)] if cutoff else 1 / ranks


def largest_cutoff(names: Sequence[str]) -> float:
    """Beyond it all ranks are the same to the metrics ``names``; infinity where none is."""
    cutoffs = [name.partition("@")[2] for name in names]
    return max((float(cutoff) if cutoff else np.inf for cutoff in cutoffs), default=0.0)


def _values_at(ranks: np.ndarray, cutoff: int) -> np.ndarray:
    """[N, 6]: each of :data:`RANK_METRICS`, in their order."""
    hit = (ranks <= cutoff).astype(np.float64)
    gain = [hit, hit / np.log2(ranks + 1), hit / ranks, hit / cutoff, hit, 2 * hit / (cutoff + 1)]
    return np.stack(gain, axis=1)
