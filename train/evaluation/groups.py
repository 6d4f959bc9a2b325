"""Targets in groups: by history, by activity, by popularity, by any column of users, items or events.

N targets of a subset in the order of their users, K memberships of all of them, V items.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from configs.errors import ConfigError
from configs.schema import RunConfig, Split
from configs.schema.features import FeatureType
from configs.schema.item_features import ItemFeatureType
from data_pipeline.store.features import FIRST_VALUE, MISSING, OTHER, StoredFeature
from data_pipeline.store.item_content import ContentColumn, StoredItemFeature
from data_pipeline.store.manifest import Manifest, item_content
from train.evaluation.census import POPULARITY, Catalogue, Profiles
from train.evaluation.diversity import refuse_unknown_diversity
from train.evaluation.group_files import columns_of_files, item_columns_of_file, refuse_missing_columns
from train.evaluation.user_ranks import RankedTargets

HISTORY_LENGTH, ACTIVITY, ITEM_POPULARITY = "history_length", "activity", "item_popularity"
BUILT_IN = (HISTORY_LENGTH, ACTIVITY, ITEM_POPULARITY)
LENGTHS = (1, 5, 10, 20, 50, 100, 200)
"""Where the groups by events before the target begin."""
ACTIVE_SHARE = 0.05
"""The most active users are those above this quantile from the top (Li and others, WWW 2021)."""
NO_VALUE = "(no value)"
OTHERS = "(others)"
MAX_LABELS = 20
"""Values of a column that are groups of their own; of a number with more values the quarters are."""
_GROUPED_CONTENT = (ItemFeatureType.CATEGORY, ItemFeatureType.CATEGORIES, ItemFeatureType.NUMBER)


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which of N targets are in which group; a target may be in several, and in none."""

    name: str
    labels: list[str]
    target: np.ndarray
    """Place of a target, int64 [K]."""
    label: np.ndarray
    """Place of the label of each, int64 [K]."""

    def members(self, label: int) -> np.ndarray:
        """The targets of one group, as places."""
        return self.target[self.label == label]


def refuse_unknown_groups(config: RunConfig, manifest: Manifest) -> None:
    """Raise :class:`ConfigError` for a name of ``evaluation.groups`` that nothing has, or that cannot be grouped by,
    and :class:`DataError` for a file of users or items that is not there or has no such column."""
    if config.data.split is Split.NONE:
        return
    outside = _outside_names(config, manifest)
    if outside and not (config.evaluation.user_file or config.evaluation.item_file):
        known = [*BUILT_IN, *sorted(manifest.features), *sorted(_item_columns(manifest))]
        raise ConfigError(
            f"evaluation.groups: data.store={config.data.store} has no {outside[0]!r} to group by; use some of "
            f"{', '.join(known)}, or name a file with that column by evaluation.user_file or evaluation.item_file"
        )
    refuse_missing_columns(config, outside)
    refuse_unknown_diversity(config, manifest)


def event_columns(config: RunConfig, manifest: Manifest) -> list[str]:
    """The features of events that ``config`` groups by."""
    return [name for name in config.evaluation.groups if name in manifest.features and name not in BUILT_IN]


def groupings_of(
    config: RunConfig, manifest: Manifest, targets: RankedTargets, catalogue: Catalogue, profiles: Profiles
) -> list[Grouping]:
    """Those of ``evaluation.groups``, in their order. Raises :class:`ConfigError` as :func:`refuse_unknown_groups`,
    and :class:`DataError` for a file that cannot be read."""
    in_store = (*BUILT_IN, *manifest.features, *_item_columns(manifest))
    by_file = columns_of_files(
        config, manifest, targets, [name for name in config.evaluation.groups if name not in in_store]
    )
    found = []
    for name in config.evaluation.groups:
        if name == HISTORY_LENGTH:
            found.append(_by_length(targets.history_length))
        elif name == ACTIVITY:
            found.append(_by_activity(profiles.num_training))
        elif name == ITEM_POPULARITY:
            found.append(_of_codes(name, catalogue.group[targets.item].astype(np.int64), list(POPULARITY)))
        elif name in by_file:
            found.append(_of_column(name, by_file[name]))
        elif name in manifest.features:
            found.append(_of_event_feature(name, manifest.features[name], profiles.features[name]))
        else:
            column = item_content(config.data.store, manifest, [name])[name]
            found.append(_of_content(name, column, targets.item))
    return found


def item_groupings_of(config: RunConfig, manifest: Manifest, catalogue: Catalogue) -> list[Grouping]:
    """Of all items [V]: by popularity, and by what else of ``evaluation.groups`` is of items. Raises as
    :func:`groupings_of`."""
    every = np.arange(manifest.num_items)
    found = [_of_codes(ITEM_POPULARITY, catalogue.group.astype(np.int64), list(POPULARITY))]
    by_file = item_columns_of_file(config, manifest, _outside_names(config, manifest))
    for name in config.evaluation.groups:
        if name in by_file:
            found.append(_of_column(name, by_file[name]))
        elif name in _item_columns(manifest) and name not in (*BUILT_IN, *manifest.features):
            found.append(_of_content(name, item_content(config.data.store, manifest, [name])[name], every))
    return found


def _outside_names(config: RunConfig, manifest: Manifest) -> list[str]:
    """The names of ``evaluation.groups`` that the store does not have: columns of the files, if anything."""
    in_store = (*BUILT_IN, *manifest.features, *_item_columns(manifest))
    return [name for name in config.evaluation.groups if name not in in_store]


def _item_columns(manifest: Manifest) -> dict[str, StoredItemFeature]:
    content = manifest.item_content.features if manifest.item_content is not None else {}
    return {name: feature for name, feature in content.items() if feature.type in _GROUPED_CONTENT}


def _by_length(length: np.ndarray) -> Grouping:
    codes = np.searchsorted(LENGTHS, length, side="right") - 1
    ends = [str(end - 1) for end in LENGTHS[1:]]
    labels = [f"{start}-{end}" for start, end in zip(LENGTHS, ends, strict=False)] + [f"{LENGTHS[-1]}+"]
    return _of_codes(HISTORY_LENGTH, codes, labels)


def _by_activity(num_training: np.ndarray) -> Grouping:
    limit = np.quantile(num_training, 1 - ACTIVE_SHARE, method="lower") if len(num_training) else 0
    labels = ["others", f"most active {ACTIVE_SHARE:.0%}"]
    return _of_codes(ACTIVITY, (num_training > limit).astype(np.int64), labels)


def _of_codes(name: str, code: np.ndarray, labels: list[str]) -> Grouping:
    return Grouping(name, labels, np.arange(len(code)), code)


def _of_event_feature(name: str, feature: StoredFeature, values: np.ndarray) -> Grouping:
    if feature.type is FeatureType.NUMBER:
        shift, scale = feature.shift_and_scale
        return _of_column(name, pl.Series(values.astype(np.float64) * scale + shift))
    return _frequent(name, np.arange(len(values)), values.astype(np.int64), _labels_of(feature))


def _of_content(name: str, column: ContentColumn, item: np.ndarray) -> Grouping:
    feature = column.feature.values
    assert feature is not None, "categories and numbers have values"
    if column.offsets is not None:
        starts, lengths = column.offsets[item], column.offsets[item + 1] - column.offsets[item]
        target = np.repeat(np.arange(len(item)), lengths)
        place = np.arange(len(target)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        codes = column.values[starts[target] + place].astype(np.int64)
        alone = np.flatnonzero(lengths == 0)
        target, codes = np.concatenate([target, alone]), np.concatenate([codes, np.full(len(alone), MISSING)])
        return _frequent(name, target, codes, _labels_of(feature))
    if column.feature.type is ItemFeatureType.NUMBER:
        shift, scale = feature.shift_and_scale
        return _of_column(name, pl.Series(column.values[item].astype(np.float64) * scale + shift))
    return _frequent(name, np.arange(len(item)), column.values[item].astype(np.int64), _labels_of(feature))


def _labels_of(feature: StoredFeature) -> list[str]:
    """By code: the values where they are known, else the number of the bucket."""
    buckets = [f"bucket {code}" for code in range(FIRST_VALUE, feature.num_codes)]
    labels = {MISSING: NO_VALUE, OTHER: "(rare values)"}
    named = feature.vocabulary if len(feature.vocabulary) == feature.num_codes - FIRST_VALUE else buckets
    return [labels[code] for code in range(FIRST_VALUE)] + list(named)


def _of_column(name: str, values: pl.Series) -> Grouping:
    """[N] plain values, null where there is none: numbers of many values by quarters, else a group a value."""
    values = values.fill_nan(None) if values.dtype.is_float() else values
    if values.dtype.is_numeric() and values.n_unique() > MAX_LABELS:
        return _by_quarters(name, values.cast(pl.Float64).fill_null(np.nan).to_numpy())
    text = values.cast(pl.String)
    labels = text.drop_nulls().unique().sort().to_list()
    codes = text.replace_strict(labels, list(range(len(labels))), default=len(labels), return_dtype=pl.Int64)
    return _frequent(name, np.arange(len(values)), codes.fill_null(len(labels)).to_numpy(), [*labels, NO_VALUE])


def _by_quarters(name: str, values: np.ndarray) -> Grouping:
    is_there = np.isfinite(values)
    cuts = np.unique(np.quantile(values[is_there], [0.25, 0.5, 0.75], method="lower"))
    codes = np.where(is_there, np.searchsorted(cuts, values), len(cuts) + 1)
    labels = [f"up to {cuts[0]:g}"] + [f"{low:g} to {high:g}" for low, high in pairwise(cuts)]
    return _of_codes(name, codes, [*labels, f"above {cuts[-1]:g}", NO_VALUE])


def _frequent(name: str, target: np.ndarray, code: np.ndarray, labels: Sequence[str]) -> Grouping:
    """With the most frequent labels alone; the other values are one group."""
    counts = np.bincount(code, minlength=len(labels))
    if (counts > 0).sum() <= MAX_LABELS:
        return Grouping(name, list(labels), target, code)
    chosen = np.sort(np.argsort(-counts, kind="stable")[:MAX_LABELS])
    new = np.full(len(labels), len(chosen))
    new[chosen] = np.arange(len(chosen))
    pairs = np.unique(np.stack([target, new[code]], 1), axis=0)  # a target is in the rest once
    return Grouping(name, [*(labels[each] for each in chosen), OTHERS], pairs[:, 0], pairs[:, 1])
