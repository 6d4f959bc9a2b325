"""Events come in the order of their times at the log's own precision, whatever writes the times down."""

import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import Interrupting, files_of, newest_of

from configs.schema import DataConfig
from configs.schema.source import SourceConfig, TimeUnit
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.read.times import MAX_NS, MIN_NS, nanoseconds
from data_pipeline.store.manifest import Manifest

START_NS = 1_600_000_000_000_000_000


def fine_log(num: int, seed: int = 0) -> pl.DataFrame:
    """``num`` events, most of whose times differ within a few milliseconds alone, some not at all."""
    draw = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "user_id": draw.integers(0, 7, num),
            "item_id": draw.integers(0, 30, num),
            "timestamp": pl.Series(START_NS + draw.integers(0, 3000, num) * 1000).cast(pl.Datetime("ns")),
        }
    )


def sorted_items(log: pl.DataFrame) -> dict[int, list[int]]:
    """The raw items of each user, by time and then arrival."""
    ordered = log.sort("user_id", "timestamp", maintain_order=True)
    return {user: rows["item_id"].to_list() for (user,), rows in ordered.group_by("user_id", maintain_order=True)}


def items_in(store: Path) -> dict[int, list[int]]:
    store = newest_of(store)
    raw = pl.read_parquet(store / "items.parquet")["raw_item"]
    rows = pl.read_parquet(store / "histories" / "*.parquet").select("raw_user", "item").rows()
    return {user: [raw[item] for item in items] for user, items in rows}


def ties_in(log: pl.DataFrame) -> int:
    rows = log.sort("user_id", "timestamp").select("user_id", "timestamp").rows()
    return sum(one == other for one, other in pairwise(rows))


def prepared(folder: Path, log: Path, name: str = "store", unit: str = "auto", **options: object) -> Manifest:
    source = SourceConfig(time_unit=TimeUnit(unit))
    return prepare(DataConfig(log=str(log), store=str(folder / name), source=source, **options))  # type: ignore[arg-type]


WRITERS = {
    "datetime[us]": lambda ns: ns.cast(pl.Datetime("us")),
    "datetime[ns, zone]": lambda ns: ns.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
    "microseconds": lambda ns: ns.cast(pl.Int64) // 1000,
    "nanoseconds": lambda ns: ns.cast(pl.Int64),
    "seconds in float64": lambda ns: ns.cast(pl.Int64) / 1e9,
    "seconds in a decimal": lambda ns: (ns.cast(pl.Int64) // 1000).cast(pl.Decimal(30, 0)).map_elements(
        lambda value: Decimal(value) / 10**6, return_dtype=pl.Decimal(30, 6)
    ),
    "ISO text": lambda ns: ns.dt.strftime("%Y-%m-%dT%H:%M:%S%.f"),
    "Postgres' text": lambda ns: ns.dt.strftime("%Y-%m-%d %H:%M:%S%.6f+00"),
    "seconds as text": lambda ns: (ns.cast(pl.Int64) // 1000).map_elements(
        lambda value: f"{value // 10**6}.{value % 10**6:06d}", return_dtype=pl.String
    ),
}  # fmt: skip
"""Ways to write down times of whole microseconds."""


@pytest.mark.parametrize("writer", WRITERS)
def test_events_within_a_millisecond_keep_their_order(writer: str, tmp_path: Path) -> None:
    log = fine_log(300)
    log.with_columns(WRITERS[writer](pl.col("timestamp"))).write_parquet(tmp_path / "log.parquet")
    manifest = prepared(tmp_path, tmp_path / "log.parquet")
    assert items_in(tmp_path / "store") == sorted_items(log)
    assert manifest.num_time_ties == ties_in(log)
    assert manifest.first_time_ms == log["timestamp"].dt.epoch("ms").min()


def test_all_ways_to_write_a_time_give_one_store(tmp_path: Path) -> None:
    stores = []
    for k, write in enumerate(WRITERS.values()):
        log = fine_log(300).with_columns(write(pl.col("timestamp")))
        log.write_parquet(tmp_path / f"{k}.parquet")
        prepared(tmp_path, tmp_path / f"{k}.parquet", f"store-{k}")
        stores.append(files_of(tmp_path / f"store-{k}" / "histories"))
    assert all(store == stores[0] for store in stores)


def test_events_that_differ_by_nanoseconds_are_no_duplicates(tmp_path: Path) -> None:
    times = [START_NS + step for step in (1, 2, 2, 0)]
    log = pl.DataFrame({"user_id": [1] * 4, "item_id": [7, 8, 8, 7], "timestamp": times})
    log.write_parquet(tmp_path / "log.parquet")
    manifest = prepared(tmp_path, tmp_path / "log.parquet", deduplicate=True)
    assert (manifest.num_events, manifest.rows_filtered["duplicate"]) == (3, 1)
    assert items_in(tmp_path / "store") == {1: [7, 7, 8]}


@pytest.mark.parametrize("deduplicate", [False, True])
def test_days_that_are_appended_interleave_as_if_prepared_at_once(deduplicate: bool, tmp_path: Path) -> None:
    log = fine_log(400)
    (tmp_path / "days").mkdir()
    for k, day in enumerate((log[:150], log[150:300], log[300:])):
        day.write_parquet(tmp_path / "days" / f"{k}.parquet")
    whole = prepared(tmp_path, tmp_path / "days", "whole", deduplicate=deduplicate)
    for k in range(3):
        grown = prepared(tmp_path, tmp_path / "days" / f"{k}.parquet", "grown", deduplicate=deduplicate, append=True)
    assert (grown.fingerprint, grown.num_time_ties) == (whole.fingerprint, whole.num_time_ties)
    assert items_in(tmp_path / "grown") == items_in(tmp_path / "whole")


def test_a_finer_day_joins_a_store_of_milliseconds(tmp_path: Path) -> None:
    coarse = pl.DataFrame({"user_id": [1], "item_id": [10], "timestamp": [START_NS // 10**6]})
    fine = pl.DataFrame({"user_id": [1, 1], "item_id": [30, 20], "timestamp": [START_NS + 900, START_NS + 1]})
    coarse.write_parquet(tmp_path / "a.parquet")
    fine.write_parquet(tmp_path / "b.parquet")
    prepared(tmp_path, tmp_path / "a.parquet", append=True)
    assert prepared(tmp_path, tmp_path / "b.parquet", append=True).num_time_ties == 0
    assert items_in(tmp_path / "store") == {1: [10, 20, 30]}


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_a_prepare_that_was_stopped_counts_the_same_ties(after: int, tmp_path: Path) -> None:
    fine_log(3000).write_parquet(tmp_path / "log.parquet")
    whole = prepared(tmp_path, tmp_path / "log.parquet", "whole", memory_gib=0.0001)
    config = DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "cut"), memory_gib=0.0001)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, Interrupting(after))
    assert prepare(config).num_time_ties == whole.num_time_ties
    assert files_of(tmp_path / "cut" / "histories") == files_of(tmp_path / "whole" / "histories")


def test_a_store_of_milliseconds_has_no_further_column(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {"user_id": [1, 1], "item_id": [1, 2], "timestamp": [START_NS // 10**6, START_NS // 10**6 + 1]}
    )
    log.write_parquet(tmp_path / "log.parquet")
    prepared(tmp_path, tmp_path / "log.parquet")
    assert pq.read_schema(tmp_path / "store" / "histories" / "part-00000.parquet").names == [
        *("raw_user", "user", "item", "timestamp")
    ]


def moments(values: list[object], dtype: pl.DataType, unit: TimeUnit) -> list[int | None]:
    column = pl.Series("time", values, dtype=dtype)
    return column.to_frame().lazy().select(nanoseconds("time", dtype, unit)).collect()["time"].to_list()


@pytest.mark.parametrize(
    ("text", "beyond_ns"),
    [
        ("2020-09-13T12:26:40Z", 0),
        ("2020-09-13 12:26:40+00", 0),
        ("2020-09-13 12:26:40.123456", 123_456_000),
        ("2020-09-13 12:26:40.123456789 UTC", 123_456_789),
        ("2020-09-13T17:56:40+0530", 0),
        ("2020-09-13T17:56:40+05:30[Asia/Kolkata]", 0),
        ("2020-09-13 08:56:40.5-03:30", 500_000_000),
        ("2020/09/13 12:26:40", 0),
        ("2020-9-13 12:26:40", 0),
    ],
)
def test_a_time_as_text_is_its_moment(text: str, beyond_ns: int) -> None:
    assert moments([text], pl.String(), TimeUnit.MS) == [START_NS + beyond_ns]


def test_what_is_no_time_is_null_and_the_endless_lies_outside_of_every_range() -> None:
    texts = ["monday", "2020-02-31", "2020-01-01 25:00:00", "13/09/2020", "", "infinity", "-infinity", "3000-01-01"]
    assert moments(texts, pl.String(), TimeUnit.MS) == [None] * 5 + [MAX_NS, MIN_NS, MAX_NS]


def test_dates_that_are_written_as_numbers() -> None:
    numbers = [20200913, 20200913122640, 20200231, 7]
    day = START_NS // 86_400_000_000_000 * 86_400_000_000_000
    expected = [day, START_NS, None, None]
    assert moments(numbers, pl.Int64(), TimeUnit.YYYYMMDD) == expected
    assert moments([str(number) for number in numbers], pl.String(), TimeUnit.YYYYMMDD) == expected


def test_a_whole_number_of_any_unit_and_type_is_one_moment() -> None:
    for unit, per_second in ((TimeUnit.S, 1), (TimeUnit.MS, 10**3), (TimeUnit.US, 10**6), (TimeUnit.NS, 10**9)):
        value = 1_600_000_000 * per_second
        for dtype in (pl.Int64(), pl.UInt64(), pl.Float64(), pl.String(), pl.Decimal(30, 0), pl.Decimal(38, 4)):
            written = str(value) if dtype == pl.String else Decimal(value) if isinstance(dtype, pl.Decimal) else value
            assert moments([written], dtype, unit) == [START_NS], (unit, dtype)


def test_the_column_of_finer_times_is_read_back_by_an_append_alone(tmp_path: Path) -> None:
    fine_log(50).write_parquet(tmp_path / "log.parquet")
    prepared(tmp_path, tmp_path / "log.parquet")
    assert "timestamp_ns" not in json.loads((tmp_path / "store" / "manifest.json").read_text())["columns"]
    table: pa.Table = pq.read_table(tmp_path / "store" / "histories" / "part-00000.parquet")
    assert table.schema.field("timestamp_ns").type == pa.list_(pa.int32())
