"""The stages from files to histories on a Spark cluster; what comes out is what Polars would have made.

1. scan: a task a piece of a file types and judges its rows (``tasks.scan``);
2. where asked for: duplicates out, then the k-core, by Spark's own joins and counts;
3. items by descending count, statistics of the features (``features``); users go to the parts of their dense ids, and
   a task sorts and writes each (``parts``).

Between stages the events lie in ``spill`` as Parquet, which all machines must see: a lost machine costs its own tasks
alone, and plans do not grow with the rounds of a k-core. On the machine that began the work: a row an item, the
vocabularies, and the histories once more, a row group at a time, for the fingerprint, which is over users in order.
"""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pyspark
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from configs.errors import DataError
from configs.schema import DataConfig
from data_pipeline.prepare.local_engine import PreparedStore, num_events_left
from data_pipeline.prepare.partition.item_index import ItemCounts, item_table
from data_pipeline.prepare.partition.scan import check_kinds, check_some_rows, duplicate_key
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.read.quarantine import check_fraction
from data_pipeline.prepare.read.sources import LogFile, reading
from data_pipeline.prepare.read.times import NS_PER_MS
from data_pipeline.prepare.spark import tasks
from data_pipeline.prepare.spark.features import SparkEvents
from data_pipeline.prepare.spark.frames import Spilled, arrow_of, over
from data_pipeline.prepare.spark.parts import written_parts
from data_pipeline.prepare.spark.tasks import Piece
from data_pipeline.prepare.workspace import State, Workspace
from data_pipeline.prepare.write.feature_statistics import stored_features
from data_pipeline.prepare.write.histories import count_histories, write_items

ENGINE = f"spark-{pyspark.__version__}"
ROWS_PER_PIECE = 2_000_000
"""Of a Parquet file, cut at row groups; a text file is one piece, since only its reader knows where a row begins."""


def survey(session: SparkSession, files: list[LogFile], config: DataConfig) -> list[dict[str, Any]]:
    """Of each file: ``digest``, and whether ``user`` and ``item`` hold integers where it is text."""
    pieces = [Piece(path=_path_of(file), file=number, view=file.view) for number, file in enumerate(files)]
    found = arrow_of(over(session, len(pieces), tasks.survey(pieces, config), tasks.SURVEY)).to_pylist()
    _raise_first(found, "file")
    return sorted(found, key=lambda row: row["file"])


def run_on_spark(
    session: SparkSession,
    files: list[LogFile],
    config: DataConfig,
    id_types: dict[str, pl.DataType],
    work: Workspace,
    progress: ProgressReporter,
) -> PreparedStore:
    """Write ``items.parquet``, ``histories`` and ``quarantine`` of ``files``, as ``engine.run_stages`` does."""
    spilled = Spilled(session, work.spill)
    progress.say(f"spark: reading {len(files):,} files")
    pieces = [piece for number, file in enumerate(files) for piece in _pieces_of(file, number)]
    schema = tasks.scan_schema(config, id_types)
    scanned = spilled.keep("scanned", over(session, len(pieces), tasks.scan(pieces, config, id_types), schema))
    told = arrow_of(scanned.where(F.col("user").isNull()).select("file", "count_of", "count", "failure")).to_pylist()
    _raise_first(told, "file")
    _count(told, config, work.state)
    broken = sorted({row["file"] for row in told if row["count_of"].startswith(tasks.BROKEN)})
    _keep_broken(
        session, [Piece(path=_path_of(files[k]), file=k, view=files[k].view) for k in broken], config, id_types, work
    )
    check_some_rows(work.state.rows_read, config)
    check_fraction(work.state.rows_quarantined, work.state.rows_read, config.max_bad_fraction)
    check_kinds(work.state.kinds_seen, config, progress)
    events = scanned.where(F.col("user").isNotNull()).drop("count_of", "count", "failure")
    events = _distinct(events, config, work, spilled, progress)
    events = _core(events, config, work, spilled, progress)
    items, has_finer_times = _items(events, id_types)
    num_rows = num_events_left(items, config)
    write_items(work.store / "items.parquet", items)
    features = stored_features(config.features, SparkEvents(events))
    progress.say(f"spark: writing {num_rows:,} events")
    folder = work.store / "histories"
    folder.mkdir()
    table = work.store / "items.parquet"
    _raise_first(written_parts(session, events, table, folder, spilled, features, has_finer_times), "place")
    histories = count_histories(folder, items["raw_item"], num_rows, progress, features)
    assert histories.num_events == num_rows, "every event that is counted must be written"
    for attempt in work.store.glob(f"*/{tasks.ATTEMPT}*"):
        shutil.rmtree(attempt)
    return PreparedStore(items=items, histories=histories, engine=ENGINE, features=features)


def _path_of(file: LogFile) -> Path:
    assert isinstance(file.path, Path), "prepare refuses URLs for Spark"
    return file.path


def _pieces_of(file: LogFile, number: int) -> list[Piece]:
    """Runs of row groups with at least ``ROWS_PER_PIECE`` rows, but for the last."""
    whole = Piece(path=_path_of(file), file=number, first_number=file.first_number, view=file.view)
    if file.is_text or file.view.has_deleted:
        return [whole]
    with reading(file.path):
        footer = pq.read_metadata(_path_of(file))
        lengths = [footer.row_group(k).num_rows for k in range(footer.num_row_groups)]
    pieces = [replace(whole, num_rows=0)]
    for length in lengths:
        last = pieces[-1]
        assert last.num_rows is not None, "pieces of Parquet have an end"
        if last.num_rows >= ROWS_PER_PIECE:
            last = replace(whole, first_row=last.first_row + last.num_rows, num_rows=0)
            pieces.append(last)
        last.num_rows = (last.num_rows or 0) + length
    return pieces


def _count(told: list[dict[str, Any]], config: DataConfig, state: State) -> None:
    """Read, filtered and broken rows into the state."""
    counts: Counter[str] = Counter()
    for row in told:
        counts[row["count_of"]] += row["count"]
    state.rows_read = counts[tasks.READ]
    kinds = {name: count for name, count in counts.items() if name.startswith(tasks.KIND)}
    state.kinds_seen = {name.removeprefix(tasks.KIND): count for name, count in kinds.items()}
    broken = sorted(name for name in counts if name.startswith(tasks.BROKEN))
    state.rows_quarantined = {name.removeprefix(tasks.BROKEN): counts[name] for name in broken}
    if config.event_types:
        state.rows_filtered["event_type"] = counts[tasks.OTHER_TYPE]
    state.rows_spilled = state.rows_read - sum(state.rows_quarantined.values()) - counts[tasks.OTHER_TYPE]


def _keep_broken(
    session: SparkSession, broken: list[Piece], config: DataConfig, id_types: dict[str, pl.DataType], work: Workspace
) -> None:
    """Write the quarantine, a task a file that has broken rows."""
    if not broken:
        return
    folder = work.store / "quarantine"
    folder.mkdir()
    task = tasks.quarantine(broken, config, id_types, folder)
    _raise_first(arrow_of(over(session, len(broken), task, tasks.WRITTEN)).to_pylist(), "place")


def _distinct(
    events: DataFrame, config: DataConfig, work: Workspace, spilled: Spilled, progress: ProgressReporter
) -> DataFrame:
    """Of events with all of the key alike, the one that came first, with its features."""
    if not config.deduplicate:
        return events
    progress.say("spark: de-duplicating")
    key = duplicate_key(config)
    first = F.min(F.struct("file", "row", *map(event_column, config.features)))
    distinct = spilled.keep("distinct", events.groupBy(*key).agg(first.alias("first")).select(*key, "first.*"))
    work.state.rows_filtered["duplicate"] = work.state.rows_spilled - distinct.count()
    return distinct


def _core(
    events: DataFrame, config: DataConfig, work: Workspace, spilled: Spilled, progress: ProgressReporter
) -> DataFrame:
    """Users and items with enough events, in turn until none leaves; their order does not change the core."""
    wanted = {"item": config.min_item_events, "user": config.min_user_events}
    wanted = {name: number for name, number in wanted.items() if number > 1}
    if not wanted:
        return events
    before = num_left = work.state.rows_spilled - work.state.rows_filtered.get("duplicate", 0)
    num_rounds = 0
    while True:
        num_rounds += 1
        left = events
        for name, number in wanted.items():
            enough = left.groupBy(name).count().where(F.col("count") >= number).select(name)
            left = left.join(enough, name, "left_semi")
        events = spilled.keep(f"core-{num_rounds}", left)
        spilled.drop(f"core-{num_rounds - 1}")
        num_before, num_left = num_left, events.count()
        progress.say(f"spark: round {num_rounds} of the core leaves {num_left:,} of {num_before:,} events")
        if num_left == num_before:
            work.state.rows_filtered["min_events"] = before - num_left
            return events


def _items(events: DataFrame, id_types: dict[str, pl.DataType]) -> tuple[pl.DataFrame, bool]:
    """``items.parquet``, by the embedded engine's rule for dense ids, and whether times are finer than that."""
    is_finer = F.max(F.col("timestamp") % NS_PER_MS != 0).alias("is_finer")
    totals = (
        F.count("*").alias("count"),
        F.min("timestamp").alias("first"),
        F.max("timestamp").alias("last"),
        is_finer,
    )
    found = pl.from_arrow(arrow_of(events.groupBy("item").agg(*totals)))
    assert isinstance(found, pl.DataFrame), "a table is a frame"
    counts = ItemCounts(len(found))
    counts.count, counts.first_time, counts.last_time = (
        found[name].cast(pl.Int64).to_numpy().astype(np.int64) for name in ("count", "first", "last")
    )
    return item_table(found["item"].cast(id_types["item"]), counts, num_old=0)[0], bool(found["is_finer"].any())


def _raise_first(told: list[dict[str, Any]], order: str) -> None:
    """Raise the failure of the first file or part, as one machine would have met it."""
    failed = sorted((row[order], row["failure"]) for row in told if row["failure"] is not None)
    if failed:
        raise DataError(str(failed[0][1]))
