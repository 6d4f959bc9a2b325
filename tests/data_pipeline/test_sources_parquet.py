"""A Parquet file that Arrow reads is to Polars what its own scan is."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from data_pipeline.prepare.parquet import scan_parquet

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
