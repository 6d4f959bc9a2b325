"""Bootstrap intervals of the ranking metrics, over users."""

from statistics import NormalDist

import numpy as np

from train.evaluation.metrics import metric_names, rank_histogram, values_at_cutoffs

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""So many standard errors around the mean hold that share of a normal distribution."""


def bootstrap_intervals(ranks: np.ndarray, num_samples: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % percentile interval of each metric of ``quality_of(ranks)``, from ``num_samples`` resamples of the users.

    Users with equal ranks are interchangeable, so a resample is one multinomial draw over the distinct ranks: the
    same distribution as drawing users one by one, at a cost that does not grow with their number. Deterministic in
    ``seed`` and independent of the order of ``ranks``. Raises ValueError as ``quality_of`` does.
    """
    values, counts = rank_histogram(ranks)
    resampled = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=num_samples)
    means = resampled @ values_at_cutoffs(values) / counts.sum()
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return dict(zip(metric_names(), zip(low.tolist(), high.tolist(), strict=True), strict=True))
