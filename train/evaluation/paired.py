"""Two models on the same targets: the difference of their metrics over users, its interval, and whether it is chance.

N targets, C distinct pairs of ranks, M metrics, S resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.evaluation.bootstrap import CONFIDENCE, Z
from train.evaluation.metrics import largest_cutoff, user_values

MAX_CELLS = 2**14
"""Of more distinct pairs of ranks the interval is that of the normal limit: there are so many users then."""
MANY_DIFFERENCES = 1000
"""So many users whose values differ make the randomisation test its normal limit."""
BLOCK = 2**22
"""Random numbers that are held at once."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Of one metric, second model less first."""

    first_value: float
    second_value: float
    difference: float
    low: float
    high: float
    """The 95 % interval of ``difference``, over users."""
    p_value: float
    """Of the null hypothesis that the names of the two models mean nothing; two-sided."""
    num_differing: int
    """Users whose values differ."""


def paired_differences(
    first: np.ndarray, second: np.ndarray, metrics: Sequence[str], num_samples: int = 1000, seed: int = 0
) -> dict[str, PairedDifference]:
    """The ranks ``first`` [N] and ``second`` [N] that two models give the same targets, by each of ``metrics``.

    The interval is the percentile bootstrap over users (Efron, 1979), with the same resamples for both models and all
    metrics. The test is the randomisation test, which Smucker, Allan and Carterette (CIKM 2007) recommend for
    rankings: 10 times ``num_samples`` random flips of the signs of the differences. Deterministic in ``seed`` and in
    whatever order the users come. Raises ValueError where there is no user.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} ranks are no pairs")
    pairs, counts = cells_of(first, second, largest_cutoff(metrics))
    values = np.stack([user_values(pairs[1], name) - user_values(pairs[0], name) for name in metrics], 1)
    low, high = interval_of_means(values, counts, num_samples, seed)
    found = {}
    for column, name in enumerate(metrics):
        own = [float(counts @ user_values(ranks, name) / counts.sum()) for ranks in pairs]
        difference = values[:, column]
        found[name] = PairedDifference(
            first_value=own[0],
            second_value=own[1],
            difference=float(counts @ difference / counts.sum()),
            low=float(low[column]),
            high=float(high[column]),
            p_value=randomisation_test(difference, counts, 10 * num_samples, seed),
            num_differing=int(counts[difference != 0].sum()),
        )
    return found


def cells_of(first: np.ndarray, second: np.ndarray, cutoff: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Distinct pairs of ranks, those beyond ``cutoff`` as one infinity: two [C], and how many users each has [C]."""
    sides = [np.where(ranks > cutoff, np.inf, np.asarray(ranks, np.float64)) for ranks in (first, second)]
    pairs, counts = np.unique(np.stack(sides, 1), axis=0, return_counts=True)
    return [pairs[:, 0], pairs[:, 1]], counts


def interval_of_means(
    values: np.ndarray, counts: np.ndarray, num_samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [M] of the 95 % intervals of the means of ``values`` [C, M] over users, ``counts`` [C] of each."""
    total, tail = counts.sum(), (1 - CONFIDENCE) / 2
    if len(counts) > MAX_CELLS:
        mean = counts @ values / total
        error = np.sqrt(counts @ np.square(values - mean)) / total
        return mean - Z * error, mean + Z * error
    random, means, step = np.random.default_rng(seed), [], max(BLOCK // len(counts), 1)
    for start in range(0, num_samples, step):
        size = min(step, num_samples - start)
        means.append(random.multinomial(total, counts / total, size=size) @ values / total)
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high


def randomisation_test(difference: np.ndarray, counts: np.ndarray, num_samples: int, seed: int) -> float:
    """Two-sided p-value of the mean of ``difference`` [C], of ``counts`` [C] users each, under flips of the signs.

    Never 0: of S flips at least the observed one is as extreme (Phipson and Smyth, 2010). 1 where nothing differs.
    """
    size, place = np.unique(np.abs(difference), return_inverse=True)
    num = np.bincount(place, weights=counts).astype(np.int64)
    size, num = size[size > 0], num[size > 0]
    if not len(size):
        return 1.0
    observed = abs(float(counts @ difference))
    if num.sum() >= MANY_DIFFERENCES:
        return math.erfc(observed / math.sqrt(2 * float(num @ size**2)))
    random, num_extreme, step = np.random.default_rng(seed), 0, max(BLOCK // len(size), 1)
    for start in range(0, num_samples, step):
        positive = random.binomial(num, 0.5, size=(min(step, num_samples - start), len(size)))
        flipped = np.abs((2 * positive - num) @ size)
        num_extreme += int((flipped >= observed * (1 - 1e-12)).sum())
    return (1 + num_extreme) / (1 + num_samples)


def holm(p_values: Sequence[float]) -> list[float]:
    """``p_values`` adjusted for their number (Holm, 1979): at most a share alpha of all tables has one false alarm
    among those that are below alpha, however the tests depend on one another."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()
