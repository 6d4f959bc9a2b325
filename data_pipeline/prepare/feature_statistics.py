"""Statistics of the events' features, over spilled blocks, the same to the last bit however the log was cut."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import polars as pl

from configs.feature_schema import Encode, FeatureConfig, FeatureType
from data_pipeline.features import StoredFeature
from data_pipeline.prepare.feature_columns import event_column

Blocks = Callable[[], Iterable[pl.DataFrame]]
"""All events that are used, anew at each call."""


def stored_features(features: dict[str, FeatureConfig], blocks: Blocks) -> dict[str, StoredFeature]:
    """The statistics of each feature: one pass over its column for a category, two for a number.

    In memory are the different values of one category, and of its counts.
    """
    return {name: _stored(event_column(name), feature, blocks) for name, feature in features.items()}


def _stored(column: str, feature: FeatureConfig, blocks: Blocks) -> StoredFeature:
    stored = StoredFeature(
        type=feature.type,
        encode=feature.encode,
        max_values=feature.max_values,
        normalise=feature.normalise,
        fill=feature.fill,
    )
    for block in blocks():
        stored.num_values += len(block)
        stored.num_missing += block[column].null_count()
    if feature.type is FeatureType.NUMBER:
        _measure(stored, column, blocks)
    elif feature.encode is Encode.INDEX:
        stored.vocabulary = _frequent(column, feature, blocks)
    return stored


def _frequent(column: str, feature: FeatureConfig, blocks: Blocks) -> list[str]:
    counts = pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
    for block in blocks():
        values = block[column].fill_null(feature.fill) if feature.fill else block[column].drop_nulls()
        here = values.alias("value").value_counts().cast(counts.schema)
        counts = pl.concat([counts, here]).group_by("value").agg(pl.col("count").sum())
    ordered = counts.sort(["count", "value"], descending=[True, False])
    return ordered["value"].head(feature.max_values).to_list()


def _measure(stored: StoredFeature, column: str, blocks: Blocks) -> None:
    """Sums by ``math.fsum``: rounded once, so that the order of the events does not reach the last bit."""
    num_present = stored.num_values - stored.num_missing
    total = math.fsum(_numbers(column, blocks))
    stored.filled_by = float(stored.fill) if stored.fill else (total / num_present if num_present else 0.0)
    stored.mean = math.fsum([total, stored.num_missing * stored.filled_by]) / stored.num_values
    mean = stored.mean
    squares = math.fsum(
        itertools.chain.from_iterable(((block - mean) ** 2).to_list() for block in _columns(column, blocks))
    )
    squares += stored.num_missing * (stored.filled_by - mean) ** 2
    stored.std = math.sqrt(squares / stored.num_values)
    bounds = [bound for block in _columns(column, blocks) for bound in (block.min(), block.max())]
    bounds += [stored.filled_by] * bool(stored.num_missing)
    stored.min, stored.max = float(min(bounds)), float(max(bounds))  # type: ignore[type-var, arg-type]


def _numbers(column: str, blocks: Blocks) -> Iterator[float]:
    return itertools.chain.from_iterable(block.to_list() for block in _columns(column, blocks))


def _columns(column: str, blocks: Blocks) -> Iterator[pl.Series]:
    """What is there of ``column``, block by block, never empty."""
    found = (block[column].drop_nulls() for block in blocks())
    return (values for values in found if len(values))
