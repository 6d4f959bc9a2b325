"""A Parquet file that Arrow reads is to Polars what its own scan is."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from configs.schema import ColumnsConfig
from data_pipeline.prepare.read.parquet import scan_parquet
from data_pipeline.prepare.read.quarantine import typed_rows
from data_pipeline.prepare.read.sources import open_log

QUERIES: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "all": lambda rows: rows,
    "count": lambda rows: rows.select(pl.len()),
    "first rows": lambda rows: rows.head(150),
    "last row": lambda rows: rows.tail(1),
    "rows in the middle": lambda rows: rows.slice(130, 100),
    "numbers of rows alone": lambda rows: rows.with_row_index("row").select("row"),
    "one column": lambda rows: rows.select("b"),
    "filtered": lambda rows: rows.filter(pl.col("a") > 190).select("b"),
    "filtered, numbered": lambda rows: rows.with_row_index("row").filter(pl.col("a") > 190).select("row"),
    "filtered, first": lambda rows: rows.filter(pl.col("a") > 30).head(120),
    "a constant": lambda rows: rows.select(pl.lit(None, pl.String).alias("x"), pl.col("a")).group_by("x").len(),
}


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("engine", ["streaming", "in-memory"])
def test_every_question_has_the_answer_of_the_scan_of_polars(tmp_path: Path, query: str, engine: str) -> None:
    path = tmp_path / "log.parquet"
    table = pl.DataFrame({"a": range(300), "b": [f"x{k}" for k in range(300)], "c": [[k] for k in range(300)]})
    table.write_parquet(path, row_group_size=100)
    ask = QUERIES[query]
    expected = ask(pl.scan_parquet(path)).collect(engine=engine)
    assert ask(scan_parquet(path)).collect(engine=engine).equals(expected)
    assert len(expected) > 0


@pytest.mark.parametrize("first_row", [0, 1, 99, 100, 250, 299, 300, 400])
@pytest.mark.parametrize("names", [["a", "b"], []])
def test_a_scan_may_start_at_any_row(tmp_path: Path, first_row: int, names: list[str]) -> None:
    path = tmp_path / "log.parquet"
    table = pl.DataFrame({"a": range(300), "b": [f"x{k}" for k in range(300)]})
    table.write_parquet(path, row_group_size=100)
    rows = scan_parquet(path, first_row).with_row_index("row").select("row", *names).collect(engine="streaming")
    assert rows.equals(table.slice(first_row).with_row_index("row").select("row", *names))


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_typed_rows_from_a_row_on_are_the_rest_of_all(tmp_path: Path, name: str) -> None:
    table = pl.DataFrame({"user_id": [None, *range(99)], "item_id": range(100), "timestamp": range(100)})
    path = tmp_path / name
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[name.split(".")[1]](path)
    (file,) = open_log([path], ColumnsConfig())
    types = {"user": pl.Int64(), "item": pl.Int64()}
    whole = typed_rows(file, ColumnsConfig(), types).collect()
    for first_row in (1, 40, 99, 100):
        assert typed_rows(file, ColumnsConfig(), types, first_row).collect().equals(whole.slice(first_row))


def test_row_groups_before_the_first_row_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"a": range(300)}).write_parquet(path, row_group_size=100, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    assert scan_parquet(path, 100).collect()["a"].to_list() == list(range(100, 300))
    with pytest.raises((OSError, pl.exceptions.PolarsError)):
        scan_parquet(path).collect()
