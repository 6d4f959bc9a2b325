"""`data.source.time_unit=auto`: the unit in which the numbers of the whole log are dates, said and recorded."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.source import SourceConfig, TimeUnit
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.spark import tasks
from data_pipeline.prepare.spark.tasks import Piece
from data_pipeline.store.manifest import Manifest, load_manifest

START_S = 1_600_000_000
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAYS = [20200913, 20200914, 20200915, 20201001]


def log_of(times: list[object], dtype: pl.DataType | None = None) -> pl.DataFrame:
    users = [k % 2 for k in range(len(times))]
    time = pl.Series("timestamp", times, dtype=dtype)
    return pl.DataFrame({"user_id": users, "item_id": range(len(times)), "timestamp": time})


def prepared(folder: Path, **source: object) -> tuple[Manifest, str]:
    """The store of the files in ``folder / "log"``, and what was said."""
    lines: list[str] = []
    config = DataConfig(log=str(folder / "log"), store=str(folder / "store"), source=SourceConfig(**source))  # type: ignore[arg-type]
    return prepare(config, ProgressReporter(lines.append)), "\n".join(lines)


def write(folder: Path, **tables: pl.DataFrame) -> None:
    (folder / "log").mkdir(exist_ok=True)
    for name, table in tables.items():
        stem, _, kind = name.rpartition("_")
        path = folder / "log" / f"{stem}.{kind}"
        table.write_csv(path) if kind == "csv" else table.write_parquet(path)


@pytest.mark.parametrize("unit", PER_SECOND)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_unit_is_found_said_and_recorded(unit: str, kind: str, tmp_path: Path) -> None:
    write(tmp_path, **{f"a_{kind}": log_of([(START_S + k) * PER_SECOND[unit] for k in range(10)])})
    manifest, said = prepared(tmp_path)
    assert (manifest.first_time_ms, manifest.last_time_ms) == (START_S * 1000, (START_S + 9) * 1000)
    assert manifest.time_unit == load_manifest(str(tmp_path / "store")).time_unit == unit
    assert f"({unit})" in said


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_dates_written_as_numbers_are_dates(kind: str, tmp_path: Path) -> None:
    write(tmp_path, **{f"a_{kind}": log_of(DAYS)})
    manifest, said = prepared(tmp_path)
    assert manifest.time_unit == "yyyymmdd"
    assert "dates written as numbers" in said
    assert manifest.first_time_ms == 1_599_955_200_000


def test_counters_are_dates_in_no_unit_and_count_as_milliseconds(tmp_path: Path) -> None:
    write(tmp_path, a_parquet=log_of([0, 1, 2, 3]))
    manifest, said = prepared(tmp_path)
    assert (manifest.last_time_ms, manifest.time_unit) == (3, "ms")
    assert "in no unit" in said


def test_the_same_files_are_the_same_build_and_another_unit_is_not(tmp_path: Path) -> None:
    write(tmp_path, a_parquet=log_of([START_S + k for k in range(10)]))
    prepared(tmp_path)
    before = (tmp_path / "store" / "manifest.json").stat().st_mtime_ns
    prepared(tmp_path)
    assert (tmp_path / "store" / "manifest.json").stat().st_mtime_ns == before
    assert prepared(tmp_path, time_unit=TimeUnit.MS)[0].last_time_ms == START_S + 9


def test_files_in_two_units_are_refused_by_key_and_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_parquet=log_of([START_S + k for k in range(10)]),
        b_parquet=log_of([(START_S + k) * 1000 for k in range(10)]),
    )
    with pytest.raises(DataError, match=r"data.source.time_unit") as refused:
        prepared(tmp_path)
    assert all(part in str(refused.value) for part in ("a.parquet", "b.parquet", "'timestamp'", "seconds"))


def test_rows_in_two_units_are_refused_unless_they_are_few(tmp_path: Path) -> None:
    times = [START_S + k for k in range(300)]
    write(tmp_path, a_csv=log_of([*times, START_S * 1000]))
    assert prepared(tmp_path)[0].rows_quarantined == {"timestamp_too_late": 1}
    write(tmp_path, a_csv=log_of([*times, *(1000 * time for time in times)]))
    with pytest.raises(DataError, match="would be dates"):
        prepared(tmp_path)


def test_an_append_takes_the_unit_of_the_store(tmp_path: Path) -> None:
    source = SourceConfig(time_unit=TimeUnit.S)
    store = str(tmp_path / "store")
    log_of([0, 1]).write_parquet(tmp_path / "a.parquet")
    log_of([2, 3, 4]).write_parquet(tmp_path / "b.parquet")
    prepare(DataConfig(log=str(tmp_path / "a.parquet"), store=store, source=source))
    append = DataConfig(log=str(tmp_path / "b.parquet"), store=store, append=True)
    assert prepare(append).last_time_ms == 4000


@pytest.mark.parametrize("unit", [TimeUnit.AUTO, TimeUnit.S])
def test_floats_that_cannot_hold_their_times_are_refused_with_their_step(unit: TimeUnit, tmp_path: Path) -> None:
    write(tmp_path, a_parquet=log_of([START_S + 200 * k for k in range(4)], pl.Float32()))
    with pytest.raises(DataError, match=r"float32.*128 apart") as refused:
        prepared(tmp_path, time_unit=unit)
    assert "'timestamp' (data.columns.timestamp)" in str(refused.value)


def test_the_step_that_is_named_is_the_types_own(tmp_path: Path) -> None:
    for largest in (2.0**24, 1.6e9, 1.6e12):
        step = float(np.spacing(np.float32(largest)))
        write(tmp_path, a_parquet=log_of([largest / 2, largest], pl.Float32()))
        with pytest.raises(DataError, match=f"{step:,.0f} apart"):
            prepared(tmp_path)


def test_small_floats_hold_their_times(tmp_path: Path) -> None:
    write(tmp_path, a_parquet=log_of([0.5, 86_400.0, 1_000_000.25], pl.Float32()))
    assert prepared(tmp_path, time_unit=TimeUnit.S)[0].last_time_ms == 1_000_000_250


@pytest.mark.parametrize("text", ["13/09/2020 12:26", "Sep 13 2020", "12:26:40"])
def test_texts_that_are_no_times_are_shown(text: str, tmp_path: Path) -> None:
    write(tmp_path, a_csv=log_of([text] * 4))
    with pytest.raises(DataError, match="2020-01-31") as refused:
        prepared(tmp_path)
    assert repr(text) in str(refused.value)


def test_a_task_of_spark_counts_as_the_embedded_engine_does(tmp_path: Path) -> None:
    write(tmp_path, a_csv=log_of([START_S + k for k in range(5)]))
    config = DataConfig(log=str(tmp_path / "log"))
    ids = pl.DataFrame({"id": [0]}).to_arrow().to_batches()
    [row] = next(tasks.survey([Piece(path=tmp_path / "log" / "a.csv", file=0)], config)(ids)).to_pylist()
    assert '"numbers": 5, "dates": {"s": 5}' in row["times"]


def test_times_from_a_start_of_their_own_count_as_milliseconds_though_some_would_be_dates(
    tmp_path: Path,
) -> None:
    times = np.linspace(0, 26_000_000_000, 900).astype(np.int64)  # 300 days; a part would be seconds since 1980
    pl.DataFrame({"user_id": times % 7, "item_id": times % 11, "timestamp": times}).write_parquet(
        tmp_path / "log.parquet"
    )
    manifest = prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "store")))
    assert (manifest.num_events, manifest.last_time_ms) == (900, 26_000_000_000)
