"""Between Arrow and Spark: tasks over ids, schemas in Spark's words, and events kept as Parquet between stages."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from data_pipeline.prepare.spark.tasks import Task

_PATTERN = re.compile(r"([{}*?\[\]\\])")
"""What Spark would read as a pattern in a path."""
_SPARK_NAMES = {
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float64(): "double",
    pa.string(): "string",
    pa.bool_(): "boolean",
}


def over(session: SparkSession, num_tasks: int, task: Task, schema: pa.schema) -> DataFrame:
    """``task`` run ``num_tasks`` times, on the ids 0, 1, ..., one each."""
    return mapped(session.range(0, num_tasks, 1, max(1, num_tasks)), task, schema)


def mapped(rows: DataFrame, task: Task, schema: pa.schema) -> DataFrame:
    """What ``task`` makes of ``rows``, with ``schema``."""
    return rows.mapInArrow(task, ", ".join(f"`{field.name}` {_SPARK_NAMES[field.type]}" for field in schema))


def schema_of(rows: DataFrame) -> pa.schema:
    """The schema of ``rows`` in Arrow's words."""
    types = {name: dtype for dtype, name in _SPARK_NAMES.items()}
    return pa.schema([(field.name, types[field.dataType.simpleString()]) for field in rows.schema.fields])


def arrow_of(rows: DataFrame) -> pa.Table:
    """``rows`` on this machine."""
    return rows.toArrow()


def read_parquet(session: SparkSession, path: Path, schema: StructType | None = None) -> DataFrame:
    """A Parquet file or folder that all machines see; ``schema`` saves a look into it."""
    place = _PATTERN.sub(r"\\\1", str(path.absolute()))
    reader = session.read.schema(schema) if schema is not None else session.read
    return reader.parquet(f"file://{place}")


class Spilled:
    """Rows in folders below ``folder``."""

    def __init__(self, session: SparkSession, folder: Path) -> None:
        self._session, self._folder = session, folder

    def keep(self, name: str, rows: DataFrame) -> DataFrame:
        """Write ``rows`` now; returns what reads them again."""
        path = self._folder / name
        rows.write.parquet(f"file://{path.absolute()}")
        return read_parquet(self._session, path, rows.schema)

    def drop(self, name: str) -> None:
        """Remove rows that are not read any more."""
        shutil.rmtree(self._folder / name, ignore_errors=True)
