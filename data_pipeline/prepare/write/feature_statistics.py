"""Statistics of the events' features: counts of parts are added up, to the same last bit however the log was cut."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from configs.schema.features import Encode, FeatureConfig, FeatureType
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.write.exact_sum import exact_sum, rounded
from data_pipeline.store.features import StoredFeature


@dataclass(kw_only=True, slots=True)
class Tally:
    """What some events hold of one feature; what others hold is added to it."""

    num_values: int = 0
    """Events, those without a value included."""
    num_missing: int = 0
    total: int = 0
    """Of the numbers that are there, by ``exact_sum``; the bounds are theirs too."""
    min: float = math.inf
    max: float = -math.inf

    def add(self, other: "Tally") -> None:
        """Let this one be of the other's events as well."""
        self.num_values += other.num_values
        self.num_missing += other.num_missing
        self.total += other.total
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)


class UsedEvents(Protocol):
    """All events that are used, wherever they lie; each question is one pass over them."""

    def tallies(self, names: list[str]) -> dict[str, Tally]:
        """What they hold of each feature."""
        ...

    def squared_deviations(self, means: dict[str, float]) -> dict[str, int]:
        """Of each number feature of ``means``, what :func:`squared_deviations` gives."""
        ...

    def frequent_values(self, name: str, feature: FeatureConfig) -> list[str]:
        """The vocabulary of a category with its missing values filled, by descending count, ties by their bytes."""
        ...


def stored_features(features: dict[str, FeatureConfig], events: UsedEvents) -> dict[str, StoredFeature]:
    """The statistics of each feature, over ``events``, of which there are some."""
    if not features:
        return {}
    tallies = events.tallies(list(features))
    stored = {name: _stored(feature, tallies[name]) for name, feature in features.items()}
    means = {name: found.mean for name, found in stored.items() if found.type is FeatureType.NUMBER}
    squares = events.squared_deviations(means) if means else {}
    for name, found in stored.items():
        if name in means:
            filled = found.num_missing * (found.filled_by - found.mean) ** 2
            found.std = math.sqrt((rounded(squares[name]) + filled) / found.num_values)
        elif found.encode is Encode.INDEX:
            found.vocabulary = events.frequent_values(name, features[name])
    return stored


def tally_of(values: pl.Series) -> Tally:
    """The tally of a column: strings, or float64, of which all that are no nulls are finite."""
    tally = Tally(num_values=len(values), num_missing=values.null_count())
    if values.dtype == pl.Float64 and tally.num_missing < len(values):
        numbers = values.drop_nulls().to_numpy()
        tally.total, tally.min, tally.max = exact_sum(numbers), float(numbers.min()), float(numbers.max())
    return tally


def squared_deviations(values: pl.Series, mean: float) -> int:
    """The exact sum of the squares, each rounded, of what the numbers that are there differ from ``mean``."""
    deviations = values.drop_nulls().to_numpy() - mean
    return exact_sum(deviations * deviations)


class EventBlocks:
    """Used events in blocks; in memory is one of them, and the different values of one category."""

    def __init__(self, blocks: Callable[[], Iterable[pl.DataFrame]]) -> None:
        """``blocks`` gives them all, anew at each call."""
        self._blocks = blocks

    def tallies(self, names: list[str]) -> dict[str, Tally]:
        """What the blocks hold of each feature."""
        tallies = {name: Tally() for name in names}
        for name, values in self._columns(names):
            tallies[name].add(tally_of(values))
        return tallies

    def squared_deviations(self, means: dict[str, float]) -> dict[str, int]:
        """The sum over the blocks."""
        squares = dict.fromkeys(means, 0)
        for name, values in self._columns(means):
            squares[name] += squared_deviations(values, means[name])
        return squares

    def frequent_values(self, name: str, feature: FeatureConfig) -> list[str]:
        """Of a category."""
        counts = pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
        for _, column in self._columns([name]):
            values = column.fill_null(feature.fill) if feature.fill else column.drop_nulls()
            here = values.alias("value").value_counts().cast(counts.schema)
            counts = pl.concat([counts, here]).group_by("value").agg(pl.col("count").sum())
        ordered = counts.sort(["count", "value"], descending=[True, False])
        return ordered["value"].head(feature.max_values).to_list()

    def _columns(self, names: Iterable[str]) -> Iterator[tuple[str, pl.Series]]:
        return ((name, block[event_column(name)]) for block in self._blocks() for name in names)


def _stored(feature: FeatureConfig, tally: Tally) -> StoredFeature:
    """All but the vocabulary and what needs the mean."""
    stored = StoredFeature(
        type=feature.type,
        encode=feature.encode,
        max_values=feature.max_values,
        normalise=feature.normalise,
        fill=feature.fill,
        num_values=tally.num_values,
        num_missing=tally.num_missing,
    )
    if feature.type is FeatureType.NUMBER:
        total, num_present = rounded(tally.total), tally.num_values - tally.num_missing
        stored.filled_by = float(feature.fill) if feature.fill else (total / num_present if num_present else 0.0)
        stored.mean = math.fsum([total, tally.num_missing * stored.filled_by]) / tally.num_values
        filled = [stored.filled_by] * bool(tally.num_missing)
        stored.min, stored.max = min([tally.min, *filled]), max([tally.max, *filled])
    return stored
