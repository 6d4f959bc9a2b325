"""What the lists of all users are like together: coverage, novelty, popularity, and who is shown to whom.

N users in the order of their dense ids, k rows of a list, V items, P popularity groups.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.evaluation.bootstrap import Z
from train.evaluation.census import POPULARITY, Catalogue, Profiles
from train.evaluation.groups import Grouping
from train.evaluation.lists import Lists

SMOOTHING = 0.01
"""Of the lists' distribution by that of the history, so that the divergence is finite (Steck, 2018)."""


def list_quality(
    lists: Lists,
    catalogue: Catalogue,
    profiles: Profiles,
    target: np.ndarray,
    item_groupings: Sequence[Grouping],
) -> dict[str, Any]:
    """Of the ``lists`` of the users of ``profiles``, whose ``target`` [N] items are known; ``item_groupings`` group
    the catalogue. docs/evaluation.md defines each figure."""
    assert np.array_equal(lists.user, profiles.user), "each ranked user has a list"
    item, is_there = lists.item, lists.item >= 0
    group_share = _group_share(item, catalogue.group)
    exposure = exposure_of(item, len(catalogue.count))
    return {
        "k": item.shape[1],
        "num_lists": len(item),
        "coverage": float(np.count_nonzero(exposure) / max(len(exposure), 1)),
        "exposure_gini": gini(exposure),
        "novelty": mean_with_interval(_mean_of_rows(self_information(catalogue)[item], is_there)),
        "popularity_lift": _lift(_mean_of_rows(catalogue.count[item], is_there), profiles.mean_count),
        "popularity_calibration": {
            "kl": mean_with_interval(kl_divergence(profiles.group_share, group_share)),
            "js": mean_with_interval(js_divergence(profiles.group_share, group_share)),
        },
        "exposure": {each.name: exposure_by_group(item, target, each, len(exposure)) for each in item_groupings},
    }


def exposure_of(item: np.ndarray, num_items: int) -> np.ndarray:
    """What lists [N, k] give each item, float64 [V]: 1 / log2(place + 1) for each list that it is in."""
    weight = np.broadcast_to(_weights(item.shape[1]), item.shape)
    is_there = item >= 0
    return np.bincount(item[is_there], weights=weight[is_there], minlength=num_items)


def gini(values: np.ndarray) -> float:
    """Of ``values`` [V], zeros included: 0 where all are equal, towards 1 where one has all."""
    total, number = float(values.sum()), len(values)
    if not total:
        return 0.0
    return float((2 * np.arange(1, number + 1) - number - 1) @ np.sort(values) / (number * total))


def self_information(catalogue: Catalogue) -> np.ndarray:
    """-log2 of the share of training users with each item, float64 [V]; an item without any as one with one user."""
    return np.log2(max(catalogue.num_users, 1)) - np.log2(np.maximum(catalogue.num_users_of, 1))


def kl_divergence(profile: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Of the shares ``listed`` [N, P] from those of each ``profile`` [N, P], smoothed; in nats, [N]."""
    smooth = (1 - SMOOTHING) * listed + SMOOTHING * profile
    ratio = np.divide(profile, smooth, out=np.ones_like(profile), where=profile > 0)
    return (profile * np.log(ratio)).sum(1)


def js_divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of each pair of rows of [N, P], in bits: between 0 and 1, [N]."""
    middle = (first + second) / 2
    found = np.zeros(len(first))
    for side in (first, second):
        ratio = np.divide(side, middle, out=np.ones_like(side), where=side > 0)
        found += (side * np.log2(ratio)).sum(1) / 2
    return found


def exposure_by_group(item: np.ndarray, target: np.ndarray, grouping: Grouping, num_items: int) -> dict[str, Any]:
    """Of each group of items: its ``share`` of all exposure in lists [N, k], beside its share of the catalogue and of
    the demand, which is the users' ``target`` [N]; and how many times each of the two it has."""
    weight = np.where(item >= 0, _weights(item.shape[1]), 0.0)
    total = weight.sum(1)
    found: dict[str, Any] = {}
    for code, label in enumerate(grouping.labels):
        members = np.unique(grouping.members(code))
        if not len(members):
            continue
        is_member = np.zeros(num_items, bool)
        is_member[members] = True
        own = (weight * is_member[item]).sum(1)
        found[label] = _shares(own, total, is_member[target].astype(np.float64), len(members) / num_items)
    return found


def mean_with_interval(values: np.ndarray) -> dict[str, Any]:
    """``value`` and ``ci95`` of the mean over users of ``values`` [N], without those that are NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return {"value": None, "ci95": None}
    mean, error = float(values.mean()), _standard_error(values)
    return {"value": mean, "ci95": [mean - Z * error, mean + Z * error]}


def _shares(own: np.ndarray, total: np.ndarray, is_wanted: np.ndarray, of_catalogue: float) -> dict[str, Any]:
    """``own`` exposure of a group and ``total`` of each user [N], and whether the user's target is of the group."""
    share, demand = float(own.sum() / max(total.sum(), 1e-300)), float(is_wanted.mean())
    of_user = (own - share * total) / max(total.mean(), 1e-300)  # how far each user moves the share
    error = _standard_error(of_user)
    against: dict[str, Any] = {"value": None, "ci95": None}
    if demand > 0:
        ratio = share / demand
        of_user = of_user / demand - ratio * (is_wanted - demand) / demand
        against = {
            "value": ratio,
            "ci95": [ratio - Z * _standard_error(of_user), ratio + Z * _standard_error(of_user)],
        }
    interval = [share - Z * error, share + Z * error]
    return {
        "share": share,
        "ci95": interval,
        "share_of_catalogue": of_catalogue,
        "share_of_demand": demand,
        "against_catalogue": {"value": share / of_catalogue, "ci95": [bound / of_catalogue for bound in interval]},
        "against_demand": against,
    }


def _lift(listed: np.ndarray, profile: np.ndarray) -> dict[str, Any]:
    """How much more popular the items of the lists are than those of the histories, both [N]; as a share of those."""
    is_there = ~np.isnan(listed)
    listed, profile = listed[is_there], profile[is_there]
    if not len(listed) or not profile.sum():
        return {"value": None, "ci95": None}
    ratio = float(listed.mean() / profile.mean())
    error = _standard_error((listed - ratio * profile) / profile.mean())
    return {"value": ratio - 1, "ci95": [ratio - 1 - Z * error, ratio - 1 + Z * error]}


def _group_share(item: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Share of each list [N, k] that is of each popularity group, [N, P]; NaN for an empty list."""
    counts = np.stack([((group[item] == code) & (item >= 0)).sum(1) for code in range(len(POPULARITY))], 1)
    number = (item >= 0).sum(1, keepdims=True)
    return np.divide(counts, number, out=np.full(counts.shape, np.nan), where=number > 0)


def _mean_of_rows(values: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """[N] of ``values`` [N, k]; NaN for a row without any."""
    number = is_there.sum(1)
    total = np.where(is_there, values, 0.0).sum(1)
    return np.divide(total, number, out=np.full(len(values), np.nan), where=number > 0)


def _weights(length: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, length + 2))


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
