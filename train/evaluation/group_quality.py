"""Quality by group with intervals, how far the groups are apart, and whether that is chance.

N targets, G groups.
"""

import math
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np

from train.evaluation.bootstrap import CONFIDENCE, bootstrap_intervals
from train.evaluation.groups import Grouping
from train.evaluation.metrics import metric_of, user_values
from train.evaluation.paired import holm

METRICS = ("ndcg@10", "hr@10")
"""Told of every group."""
MIN_TARGETS = 30
"""Smaller groups are told, and take no part in gaps and tests."""


def quality_by_group(ranks: np.ndarray, grouping: Grouping, num_samples: int, seed: int) -> dict[str, Any]:
    """Of ``ranks`` [N]: ``groups``, each with its number of targets, :data:`METRICS`, their 95 % intervals and, for
    each of them, how its mean differs from that of all other targets; and ``gaps`` between groups by metric.

    ``p_value``: two-sided, of the difference to all other targets, by Welch's statistic and its normal limit;
    ``p_value_holm``: corrected for the number of groups. ``is_small``: fewer than 30 targets.
    """
    groups = {}
    for code, label in enumerate(grouping.labels):
        members = np.unique(grouping.members(code))
        if len(members):
            groups[label] = _group(ranks, members, num_samples, seed)
    _correct(groups)
    return {"groups": groups, "gaps": {name: gap for name in METRICS if (gap := _gap(ranks, grouping, name))}}


def _group(ranks: np.ndarray, members: np.ndarray, num_samples: int, seed: int) -> dict[str, Any]:
    own = ranks[members]
    intervals = bootstrap_intervals(own, num_samples, seed)
    found: dict[str, Any] = {"num_targets": len(own), "is_small": len(own) < MIN_TARGETS}
    for name in METRICS:
        found[name], found[f"{name}_ci95"] = metric_of(own, name), list(intervals[name])
    is_other = np.ones(len(ranks), bool)
    is_other[members] = False
    if not found["is_small"] and is_other.sum() >= MIN_TARGETS:
        found["p_value"] = {name: _welch(own, ranks[is_other], name) for name in METRICS}
    return found


def _correct(groups: dict[str, dict[str, Any]]) -> None:
    """Add Holm's corrections, by metric."""
    tested = [group for group in groups.values() if "p_value" in group]
    for group in tested:
        group["p_value_holm"] = {}
    for name in METRICS:
        corrected = holm([group["p_value"][name] for group in tested])
        for group, p_value in zip(tested, corrected, strict=True):
            group["p_value_holm"][name] = p_value


def _gap(ranks: np.ndarray, grouping: Grouping, name: str) -> dict[str, Any]:
    """Between the groups with the largest and the smallest mean; empty where there are no two.

    The interval is Welch's, of so many pairs as could have been the two (Bonferroni): it holds although the groups
    were chosen by their means.
    """
    means = {
        label: (values.mean(), values.var(ddof=1) / len(values))
        for code, label in enumerate(grouping.labels)
        if len(values := user_values(ranks[grouping.members(code)], name)) >= MIN_TARGETS
    }
    if len(means) < 2:
        return {}
    best, worst = max(means, key=lambda label: means[label][0]), min(means, key=lambda label: means[label][0])
    difference = float(means[best][0] - means[worst][0])
    num_pairs = len(list(combinations(means, 2)))
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / num_pairs)
    error = z * math.sqrt(means[best][1] + means[worst][1])
    return {
        "best": best,
        "worst": worst,
        "difference": difference,
        "ci95": [difference - error, difference + error],
        "ratio": float(means[worst][0] / means[best][0]) if means[best][0] > 0 else 1.0,
    }


def _welch(own: np.ndarray, others: np.ndarray, name: str) -> float:
    sides = [user_values(ranks, name) for ranks in (own, others)]
    error = math.sqrt(sum(values.var(ddof=1) / len(values) for values in sides))
    difference = abs(float(sides[0].mean() - sides[1].mean()))
    return math.erfc(difference / error / math.sqrt(2)) if error > 0 else float(difference == 0)
