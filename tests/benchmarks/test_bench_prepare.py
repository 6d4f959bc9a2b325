"""The bare queries that `prepare` is held against build the lists that the store holds."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks.bench_prepare import KINDS, run
from benchmarks.large_log import write_large_log
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare

QUERIES = sorted(set(KINDS) - {"prepare"})


def test_a_large_log_has_the_rows_asked_for_and_a_few_late_ones(tmp_path: Path) -> None:
    write_large_log(tmp_path, 20_000, 1000, 300)
    rows = pl.read_parquet(tmp_path / "*.parquet")
    assert len(rows) == 20_000
    assert 0.002 < (rows["timestamp"].diff() < 0).mean() < 0.02
    assert rows["user_id"].n_unique() > 900
    counts = rows["item_id"].value_counts(sort=True)["count"]
    assert counts[0] > 20 * counts.median()


@pytest.mark.parametrize("kind", QUERIES)
def test_a_bare_query_builds_the_lists_of_the_store(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("duckdb" if kind.startswith("duckdb") else "polars")
    write_large_log(tmp_path / "log", 5000, 300, 100)
    found = KINDS[kind](DataConfig(log=str(tmp_path / "log")))
    lists = found if isinstance(found, pl.DataFrame) else pl.from_arrow(found)
    prepare(DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "store")))
    raw = pl.read_parquet(tmp_path / "store" / "items.parquet").select("item", "raw_item")
    histories = pl.read_parquet(tmp_path / "store" / "histories" / "*.parquet").explode("item", "timestamp")
    expected = histories.join(raw, on="item", how="left").select("raw_user", "raw_item", "timestamp").rows()
    assert sorted(lists.explode(lists.columns[1:]).rows()) == sorted(expected)


def test_a_run_tells_seconds_and_the_peak_of_memory(tmp_path: Path) -> None:
    write_large_log(tmp_path / "log", 5000, 300, 100)
    found = run("prepare", tmp_path / "log", str(tmp_path / "store"), 2.0)
    assert 0 < found["seconds"] < 300
    assert 0.05 < found["peak_gib"] < 16
