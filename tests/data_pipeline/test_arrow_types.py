"""Columns that nobody asked for may have any type; those that are asked for are read, or refused in plain words."""

import datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.errors import DataError
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.read.arrow_types import frame_of

NUM = 6
START = 1_600_000_000_000
MOMENT = datetime.datetime(2020, 9, 13, 12, 26, 40)
TYPES: dict[str, pa.Array] = {
    "zone +05:30": pa.array([0] * NUM, pa.timestamp("ms", "+05:30")),
    "zone Z": pa.array([0] * NUM, pa.timestamp("us", "Z")),
    "zone +00": pa.array([0] * NUM, pa.timestamp("ns", "+00")),
    "zone that nobody knows": pa.array([0] * NUM, pa.timestamp("s", "Atlantis/Capital")),
    "decimal256": pa.array([Decimal("1.5")] * NUM, pa.decimal256(60, 2)),
    "list of decimal256": pa.array([[Decimal("1.5")]] * NUM, pa.list_(pa.decimal256(60, 2))),
    "struct with a zone": pa.array([{"t": 0}] * NUM, pa.struct({"t": pa.timestamp("ms", "+01:00")})),
    "list": pa.array([[1, 2]] * NUM),
    "struct": pa.array([{"a": 1}] * NUM),
    "map": pa.array([[("a", 1)]] * NUM, pa.map_(pa.string(), pa.int64())),
    "time": pa.array([datetime.time(1)] * NUM, pa.time64("us")),
    "duration": pa.array([1] * NUM, pa.duration("ns")),
    "uuid": pa.array([UUID(int=1).bytes] * NUM, pa.uuid()),
    "fixed binary": pa.array([b"abc"] * NUM, pa.binary(3)),
    "large string": pa.array(["a"] * NUM, pa.large_string()),
    "dictionary": pa.array(["a"] * NUM).dictionary_encode(),
    "dictionary of numbers": pa.array([7] * NUM).dictionary_encode(),
    "float16": pa.array([1.5] * NUM, pa.float16()),
    "boolean": pa.array([True] * NUM),
    "null": pa.nulls(NUM),
    "date64": pa.array([MOMENT.date()] * NUM, pa.date64()),
    "json": pa.array(["{}"] * NUM, pa.json_()),
}
IN_MEMORY: dict[str, pa.Array] = {
    "string view": pa.array(["a"] * NUM, pa.string_view()),
    "binary view": pa.array([b"a"] * NUM, pa.binary_view()),
    "list view": pa.array([[1]] * NUM, pa.list_view(pa.int64())),
    "run-end": pa.RunEndEncodedArray.from_arrays(pa.array([NUM], pa.int32()), pa.array(["x"])),
    "interval": pa.array([(1, 2, 3)] * NUM, pa.month_day_nano_interval()),
    "bool8": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1] * NUM, pa.int8())),
}


def table(**columns: pa.Array) -> pa.Table:
    events = {"user_id": [1, 1, 1, 2, 2, 2], "item_id": [1, 2, 3] * 2, "timestamp": [START + k for k in range(NUM)]}
    return pa.table({**events, **columns})


def prepared(folder: Path, rows: pa.Table, **options: object) -> Path:
    pq.write_table(rows, folder / "log.parquet")
    prepare(DataConfig(log=str(folder / "log.parquet"), store=str(folder / "store"), **options))  # type: ignore[arg-type]
    return folder / "store"


def users_in(store: Path) -> list[object]:
    return pl.read_parquet(store / "histories" / "*.parquet")["raw_user"].to_list()


@pytest.mark.parametrize("name", TYPES)
def test_a_column_that_nobody_asked_for_may_have_any_type(name: str, tmp_path: Path) -> None:
    store = prepared(tmp_path, table(extra=TYPES[name]))
    assert users_in(store) == [1, 2]


@pytest.mark.parametrize("name", TYPES)
def test_a_broken_row_is_kept_whatever_stands_beside_it(name: str, tmp_path: Path) -> None:
    rows = table(extra=TYPES[name]).set_column(0, "user_id", pa.array([1, None, 1, 2, 2, 2]))
    store = prepared(tmp_path, rows, max_bad_fraction=0.5)
    kept = pl.read_parquet(store / "quarantine" / "*.parquet")
    assert kept["reason"].to_list() == ["null_user"]
    assert "extra" in kept.columns


@pytest.mark.parametrize("name", TYPES | IN_MEMORY)
def test_every_type_is_taken_and_empty_columns_are_typed_as_full_ones(name: str) -> None:
    rows = table(extra=(TYPES | IN_MEMORY)[name])
    assert frame_of(rows).schema == frame_of(rows.schema.empty_table()).schema
    assert frame_of(rows)["user_id"].to_list() == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([START + k for k in range(NUM)], pa.timestamp("ms", "+05:30")),
        pa.array([START + k for k in range(NUM)], pa.timestamp("ms", "Z")),
        pa.array([1000 * (START + k) for k in range(NUM)], pa.timestamp("us", "-03")),
        pa.array([1000 * (START + k) for k in range(NUM)], pa.timestamp("us", "Europe/Berlin")),
        pa.array([Decimal(START + k) for k in range(NUM)], pa.decimal256(50, 0)),
        pa.array([Decimal(START + k) / 1000 for k in range(NUM)], pa.decimal256(50, 3)),
        pa.array([Decimal(START + k) / 1000 for k in range(NUM)], pa.decimal128(20, 3)),
    ],
    ids=lambda times: str(times.type),
)
def test_a_time_of_any_type_is_its_moment(times: pa.Array, tmp_path: Path) -> None:
    store = prepared(tmp_path, table().set_column(2, "timestamp", times))
    found = pl.read_parquet(store / "histories" / "*.parquet")["timestamp"].to_list()
    assert found == [[START, START + 1, START + 2], [START + 3, START + 4, START + 5]]


@pytest.mark.parametrize("dtype", [pa.uuid(), pa.binary(16)], ids=str)
def test_a_uuid_is_an_id_as_people_write_it(dtype: pa.DataType, tmp_path: Path) -> None:
    users = [UUID(int=1), UUID(int=2**127 + 5)]
    ids = pa.array([user.bytes for user in users for _ in range(3)], dtype)
    store = prepared(tmp_path, table().set_column(0, "user_id", ids))
    assert users_in(store) == [str(user) for user in users]


@pytest.mark.parametrize("name", ["time", "duration", "list", "struct", "map", "list of decimal256"])
def test_a_type_that_cannot_be_a_time_is_refused_in_plain_words(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"log.parquet: column 'timestamp' \(data.columns.timestamp\) is \w+;"
    ) as refused:
        prepared(tmp_path, table().set_column(2, "timestamp", TYPES[name]))
    assert not any(word in str(refused.value).lower() for word in ("polars", "rust", "pl.", "panic", "raw_"))


def test_blanks_around_the_names_of_a_header_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"user_id, item_id , timestamp\n1, 2, {START}\n1, 3, {START + 1}\n")
    manifest = prepare(DataConfig(log=str(tmp_path / "log.csv"), store=str(tmp_path / "store")))
    assert (manifest.num_events, manifest.last_time_ms) == (2, START + 1)
