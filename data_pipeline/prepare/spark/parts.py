"""Stage 3: which part each user belongs to, and every part sorted and written by a task."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from data_pipeline.prepare.partition.spill_files import MAX_RANGES, cuts_of
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.spark import tasks
from data_pipeline.prepare.spark.frames import Spilled, arrow_of, mapped, read_parquet, schema_of
from data_pipeline.prepare.write.history_writer import USERS_PER_PART
from data_pipeline.store.features import StoredFeature

_SAMPLE = 65_536


def written_parts(
    session: SparkSession,
    events: DataFrame,
    items: Path,
    folder: Path,
    spilled: Spilled,
    features: dict[str, StoredFeature],
    has_finer_times: bool,
) -> list[dict[str, Any]]:
    """Write ``folder/part-*.parquet`` of ``events``; returns place and failure of each part.

    Dense users 0, 1, ... go by raw id, and a part holds ``USERS_PER_PART`` of them: as one machine would write it.
    """
    users = spilled.keep("users", events.select("user").distinct())
    num_users = users.count()
    dense = read_parquet(session, items).select(F.col("raw_item").alias("item"), F.col("item").alias("dense"))
    columns = ["timestamp", *map(event_column, features)]
    numbered = events.join(dense, "item").select("user", F.col("dense").alias("item"), *columns, "file", "row")
    parted = _placed(numbered, _first_users(users, num_users))
    num_tasks = 4 * -(-num_users // USERS_PER_PART)  # a hash leaves few tasks with two parts then
    ordered = parted.repartition(num_tasks, "place").sortWithinPartitions("place", "user", "timestamp", "file", "row")
    wanted = ordered.select("place", "user", "item", *columns)
    return arrow_of(mapped(wanted, tasks.write_parts(folder, features, has_finer_times), tasks.WRITTEN)).to_pylist()


def _first_users(users: DataFrame, num_users: int) -> pl.Series:
    """The first user of each part but the first.

    Ranges of about as many users are numbered each for itself, and begin where those before them end.
    """
    if num_users <= USERS_PER_PART:
        return _series(users.limit(0))
    sample = users.sample(fraction=min(1.0, _SAMPLE / num_users), seed=0)
    ranges = _placed(users, cuts_of(_series(sample), MAX_RANGES))
    lengths = {row["place"]: row["count"] for row in arrow_of(ranges.groupBy("place").count()).to_pylist()}
    before = np.cumsum([0, *(lengths.get(place, 0) for place in range(max(lengths)))])
    starts = F.array(*(F.lit(int(start)) for start in before))
    place = F.row_number().over(Window.partitionBy("place").orderBy("user")) - 1 + F.get(starts, F.col("place"))
    numbered = ranges.select("user", place.alias("dense"))
    firsts = numbered.where((F.col("dense") % USERS_PER_PART == 0) & (F.col("dense") > 0)).select("user")
    return _series(firsts).sort()


def _placed(rows: DataFrame, cuts: pl.Series) -> DataFrame:
    """``rows`` with ``place``, the range between ``cuts`` of their user."""
    if len(cuts) == 0:
        return rows.withColumn("place", F.lit(0))
    schema = schema_of(rows).append(pa.field("place", pa.int32()))
    return mapped(rows, tasks.placed(cuts, schema), schema)


def _series(users: DataFrame) -> pl.Series:
    found = pl.from_arrow(arrow_of(users.select("user")))
    assert isinstance(found, pl.DataFrame), "a table is a frame"
    return found["user"]
