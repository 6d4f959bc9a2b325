"""The used events of a prepare on Spark, asked about their features: tasks count, and their counts are added here."""

from collections.abc import Iterable
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from configs.schema.features import FeatureConfig
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.spark import tasks
from data_pipeline.prepare.spark.frames import arrow_of, mapped
from data_pipeline.prepare.write.feature_statistics import Tally


class SparkEvents:
    """Used events as Spark's rows; here come a row a task and feature, and the vocabulary of one category."""

    def __init__(self, events: DataFrame) -> None:
        self._events = events

    def tallies(self, names: list[str]) -> dict[str, Tally]:
        """What the rows hold of each feature."""
        found = {name: Tally() for name in names}
        asked = mapped(self._columns(names), tasks.tallies(names), tasks.TALLIES)
        for name, row in _by_name(asked):
            found[name].add(tasks.tally_in(row))
        return found

    def squared_deviations(self, means: dict[str, float]) -> dict[str, int]:
        """The sum over the rows."""
        found = dict.fromkeys(means, 0)
        asked = mapped(self._columns(means), tasks.squared_deviations(means), tasks.SQUARES)
        for name, row in _by_name(asked):
            found[name] += tasks.total_in(row)
        return found

    def frequent_values(self, name: str, feature: FeatureConfig) -> list[str]:
        """Of a category; Spark compares strings by their bytes, as Polars does."""
        column = F.col(event_column(name))
        filled = F.coalesce(column, F.lit(feature.fill)) if feature.fill else column
        counts = self._events.select(filled.alias("value")).where(F.col("value").isNotNull()).groupBy("value").count()
        ordered = counts.orderBy(F.desc("count"), F.asc("value")).limit(feature.max_values)
        return arrow_of(ordered.select("value")).column("value").to_pylist()

    def _columns(self, names: Iterable[str]) -> DataFrame:
        return self._events.select(*map(event_column, names))


def _by_name(asked: DataFrame) -> list[tuple[str, dict[str, Any]]]:
    return [(row["name"], row) for row in arrow_of(asked).to_pylist()]
