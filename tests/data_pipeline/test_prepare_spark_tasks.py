"""What Spark's machines run, run here without Spark: the rows and their reasons are the embedded engine's."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import random_log

from configs.errors import ConfigError
from configs.schema import ColumnsConfig, DataConfig
from configs.schema.data import Engine
from configs.schema.source import Layout, SourceConfig, TimeUnit
from data_pipeline.prepare import prepare as prepare_module
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.read.id_values import id_type
from data_pipeline.prepare.read.sources import column_names, find_log_files, open_log
from data_pipeline.prepare.spark import tasks
from data_pipeline.prepare.spark.tasks import Piece
from data_pipeline.prepare.write.feature_statistics import EventBlocks, Tally
from data_pipeline.prepare.write.history_writer import USERS_PER_PART
from dirty.case import Case, Outcome
from dirty.page import CASES

JUDGED = [case for case in CASES if case.outcome is Outcome.QUARANTINED]


def ids(number: int) -> list[pa.RecordBatch]:
    """What ``session.range(number)`` gives to tasks."""
    return [pa.record_batch({"id": [k]}) for k in range(number)]


def rows_of(batches: object) -> pl.DataFrame:
    found = pl.from_arrow(pa.Table.from_batches(list(batches)))  # type: ignore[call-overload]
    assert isinstance(found, pl.DataFrame)
    return found


def scanned(config: DataConfig, pieces: list[Piece]) -> pl.DataFrame:
    files = open_log([piece.path for piece in pieces], config.columns, config.source)
    names = column_names(config.columns)
    types = {key: id_type(files, names[key]) for key in ("user", "item")}
    return rows_of(tasks.scan(pieces, config, types)(ids(len(pieces))))


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: case.name)
def test_a_task_counts_the_broken_rows_of_the_catalogue(case: Case, tmp_path: Path) -> None:
    source = case.source | {
        "layout": Layout(case.source.get("layout", "auto")),
        "time_unit": TimeUnit(case.source.get("time_unit", "ms")),
    }
    config = DataConfig(
        log=case.make(tmp_path),
        columns=case.columns_config(),
        source=SourceConfig(**source),  # type: ignore[arg-type]
        **{"max_bad_fraction": 1.0} | case.options,  # type: ignore[arg-type]
    )
    paths = find_log_files(config.log, config.source)
    rows = scanned(config, [Piece(path=path, file=k) for k, path in enumerate(paths)])
    counts: Counter[str] = Counter()
    for name, count in rows.drop_nulls("count_of").select("count_of", "count").rows():
        counts[name] += count
    broken = {name: count for name, count in counts.items() if name.startswith(tasks.BROKEN)}
    assert broken == {tasks.BROKEN + reason: count for reason, count in case.reasons.items()}
    assert counts[tasks.READ] == rows["user"].count() + sum(broken.values()) + counts[tasks.OTHER_TYPE]


def test_pieces_of_a_file_are_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    random_log(1000).write_parquet(path, row_group_size=100)
    config = DataConfig(log=str(path), columns=ColumnsConfig(event_type="event_type"), event_types=["buy"])
    cuts = [0, 100, 400, 700, 1000]
    pieces = [Piece(path=path, file=0, first_row=a, num_rows=b - a) for a, b in pairwise(cuts)]
    by_piece, whole = scanned(config, pieces), scanned(config, [Piece(path=path, file=0)])
    assert by_piece.drop_nulls("user").equals(whole.drop_nulls("user"))
    totals = [rows.drop_nulls("count_of").group_by("count_of").agg(pl.sum("count")) for rows in (by_piece, whole)]
    assert dict(totals[0].iter_rows()) == dict(totals[1].iter_rows())


def test_a_file_that_is_gone_is_a_row_with_the_reason(tmp_path: Path) -> None:
    random_log(10).write_parquet(tmp_path / "log.parquet")
    config = DataConfig(log=str(tmp_path))
    types = {"user": pl.Int64(), "item": pl.Int64()}
    task = tasks.scan([Piece(path=tmp_path / "gone.parquet", file=7)], config, types)
    [failed] = rows_of(task(ids(1))).rows(named=True)
    assert failed["file"] == 7
    assert "gone.parquet is not there" in failed["failure"]


def test_a_folder_that_is_not_on_this_machine_is_a_row_that_says_so(tmp_path: Path) -> None:
    events = pa.record_batch({"place": pa.array([0], pa.int32()), "user": [1], "item": [2], "timestamp": [3]})
    [written] = rows_of(tasks.write_parts(tmp_path / "elsewhere", {})([events])).rows(named=True)
    assert "every machine of the cluster must see" in written["failure"]


def test_parts_are_numbered_by_the_users_before_them(tmp_path: Path) -> None:
    events = pl.DataFrame(
        {"place": [0, 0, 0, 2], "user": [1, 1, 5, 9], "item": [4, 3, 2, 1], "timestamp": [0, 1, 2, 3]}
    )
    schema = {"place": pl.Int32, "user": pl.Int64, "item": pl.Int32, "timestamp": pl.Int64}
    batches = events.cast(schema).to_arrow().to_batches(max_chunksize=1)
    assert rows_of(tasks.write_parts(tmp_path, {})(batches)).rows() == [(0, None), (2, None)]
    found = pl.read_parquet(tmp_path / "part-*.parquet").select("raw_user", "user", "item")
    assert found.rows() == [(1, 0, [4, 3]), (5, 1, [2]), (9, 2 * USERS_PER_PART, [1])]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet", "part-00002.parquet"]


def test_what_tasks_count_of_features_adds_up_to_the_counts_of_all_events() -> None:
    price = [1e16, None, 1.0, -1e16, None, 0.1, 5e-324]
    events = pl.DataFrame({"feature_price": price, "feature_shop": ["a", None, "b", "a", "c", "d", "e"]})
    names, means = ["price", "shop"], {"price": -0.3}
    tallies, squares = {name: Tally() for name in names}, 0
    for batch in [*events[4:].to_arrow().to_batches(), *events[:4].to_arrow().to_batches(max_chunksize=2)]:
        for row in rows_of(tasks.tallies(names)([batch])).rows(named=True):
            tallies[row["name"]].add(tasks.tally_in(row))
        [row] = rows_of(tasks.squared_deviations(means)([batch])).rows(named=True)
        squares += tasks.total_in(row)
    whole = EventBlocks(lambda: [events])
    assert tallies == whole.tallies(names)
    assert {"price": squares} == whole.squared_deviations(means)
    assert [(tally.num_values, tally.num_missing) for tally in tallies.values()] == [(7, 2), (7, 1)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 8))
def test_frames_of_whole_users_are_the_rows_again_and_cut_no_user(
    lengths: list[int], num_in_batch: int, num_rows: int
) -> None:
    users = pl.DataFrame({"user": [user for user, length in enumerate(lengths) for _ in range(length)]})
    frames = list(tasks.whole_users(users.iter_slices(num_in_batch), num_rows))
    assert pl.concat(frames).equals(users)
    seen = [user for frame in frames for user in frame["user"].unique()]
    assert len(seen) == len(set(seen))


def test_an_append_on_spark_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.append=true is the embedded engine's"):
        DataConfig(append=True, engine=Engine.SPARK)


def test_what_is_missing_for_spark_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare_module, "find_spec", lambda name: None)
    random_log(10).write_parquet(tmp_path / "log.parquet")
    config = DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "store"), engine=Engine.SPARK)
    with pytest.raises(ConfigError, match=r"pyspark and pandas: pip install 'shardrec\[spark\]'"):
        prepare(config)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
