"""However little memory there is, the store is the same, and memory follows the bound rather than the log."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import IDS, random_log

from benchmarks.large_log import write_large_log
from configs.schema import ColumnsConfig, DataConfig
from data_pipeline.prepare.partition.item_index import IdIndex
from data_pipeline.prepare.partition.sorting import in_order
from data_pipeline.prepare.partition.spill_files import Spill, blocks_of, cuts_of, num_rows_of, ranges_in, split_large
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import QUIET_S, ProgressReporter


@pytest.mark.slow
@pytest.mark.parametrize("kind", IDS)
def test_the_store_is_the_same_in_any_memory(tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log.parquet"
    random_log(3000, kind=kind, num_users=300).write_parquet(log, row_group_size=100)
    options = {"deduplicate": True, "min_user_events": 3, "min_item_events": 4}
    columns = ColumnsConfig(event_type="event_type")
    found = [
        prepare(DataConfig(log=str(log), store=str(tmp_path / f"{k}"), columns=columns, memory_gib=memory, **options))
        for k, memory in enumerate((4.0, 3e-4, 2e-5, 2e-6))
    ]
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("order", ["user_id", "timestamp", "item_id"])
def test_the_order_of_a_log_does_not_matter_beyond_ties(tmp_path: Path, order: str) -> None:
    rows = random_log(3000, num_users=300).unique(["user_id", "timestamp"], maintain_order=True)
    prints = []
    for name, ordered in (("as it is", rows), (order, rows.sort(order))):
        ordered.write_parquet(tmp_path / f"{name}.parquet", row_group_size=64)
        config = DataConfig(log=str(tmp_path / f"{name}.parquet"), store=str(tmp_path / name), memory_gib=5e-5)
        prints.append(prepare(config).fingerprint)
    assert prints[0] == prints[1]


def test_a_range_that_comes_out_too_large_is_cut_until_it_fits_or_is_one_user(tmp_path: Path) -> None:
    users = np.concatenate([np.zeros(500, np.int64), np.arange(700) % 350])
    events = pl.DataFrame({"user": users, "item": np.arange(1200, dtype=np.int32), "timestamp": np.arange(1200)})
    spill = Spill(tmp_path, pl.Series("user", [10_000]))
    for start in range(0, 1200, 100):
        spill.append(events[start : start + 100])
    spill.close()
    split_large(tmp_path, 60)
    sizes = [num_rows_of(path) for path in ranges_in(tmp_path)]
    assert sum(sizes) == 1200
    assert sorted(sizes)[-2] <= 60
    assert sorted(sizes)[-1] < 600
    found = pl.concat([block for path in ranges_in(tmp_path) for block in blocks_of(path)])
    assert in_order(found).equals(in_order(events))
    bounds = [pl.concat(list(blocks_of(path)))["user"] for path in ranges_in(tmp_path) if num_rows_of(path)]
    assert all(low.max() < high.min() for low, high in pairwise(bounds))


def test_cuts_make_ranges_of_about_as_many_rows(tmp_path: Path) -> None:
    sample = pl.Series(np.random.default_rng(0).integers(0, 10**9, 10_000) ** 2)
    cuts = cuts_of(sample, 20)
    counts = np.bincount(np.searchsorted(cuts.to_numpy(), sample.to_numpy(), side="right"))
    assert len(counts) == 20
    assert counts.max() <= 502
    assert len(cuts_of(pl.Series([7] * 100), 20)) <= 1


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40),
    kind=st.sampled_from(sorted(IDS)),
    is_in_time=st.booleans(),
)
def test_events_are_in_order_of_user_time_and_arrival(
    rows: list[tuple[int, int]], kind: str, is_in_time: bool
) -> None:
    rows = sorted(rows, key=lambda row: row[1]) if is_in_time else rows
    ids = IDS[kind](np.array([user for user, _ in rows], dtype=np.int64)).tolist()
    triples = [(user, time, place) for place, (user, (_, time)) in enumerate(zip(ids, rows, strict=True))]
    dtype = pl.String if kind == "string" else pl.Int64
    schema = {"user": dtype, "timestamp": pl.Int64, "item": pl.Int64}
    found = in_order(pl.DataFrame(triples, schema=schema, orient="row"))
    assert list(found.iter_rows()) == sorted(triples)


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.lists(st.integers(-(2**62), 2**62) | st.integers(-20, 20), max_size=10), max_size=6))
def test_an_id_has_one_code_whichever_way_it_is_looked_up(batches: list[list[int]]) -> None:
    known = pl.Series([3, -5], dtype=pl.Int64)
    table, join = IdIndex(known, 64), IdIndex(known, 0)
    for batch in batches:
        raw = pl.Series(batch, dtype=pl.Int64)
        codes, new = table.codes_of(raw)
        assert codes.tolist() == join.codes_of(raw)[0].tolist()
        assert table.ids.gather(codes.astype(np.int64)).to_list() == batch
        assert len(table) == len(table.ids)
        assert set(new).isdisjoint(table.ids[: len(table) - len(new)])
    assert table.ids[:2].to_list() == [3, -5]


def test_progress_tells_rate_and_time_left_and_is_silent_for_what_is_short() -> None:
    lines, now = list[str](), [0.0]
    progress = ProgressReporter(lines.append, lambda: now[0])
    progress.begin("reading", 1000)
    now[0] = QUIET_S / 2
    progress.advance(100)
    assert lines == []
    now[0] = 4.0
    progress.advance(100)
    assert lines == ["reading: 200 of 1,000 rows, 50 rows/s, 16 s left"]
    progress.begin("writing", 1000, skipped=500)
    now[0] = 8.0
    progress.advance(100)
    assert lines[1:] == [
        "writing continues after 500 rows of a prepare that was ended",
        "writing: 600 of 1,000 rows, 25 rows/s, 16 s left",
    ]


@pytest.mark.slow
def test_memory_follows_the_bound_rather_than_the_log(tmp_path: Path) -> None:
    peaks = {}
    for num in (500_000, 4_000_000):
        write_large_log(tmp_path / f"log{num}", num, num // 20, 10_000)
        code = (
            "import resource; from configs.schema import DataConfig;"
            "from data_pipeline.prepare.prepare import prepare;"
            f"prepare(DataConfig(log='{tmp_path}/log{num}', store='{tmp_path}/store{num}', memory_gib=0.05));"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks[num] = int(done.stdout) / 2**20
    bytes_of_more_rows = 3_500_000 * 24 / 2**30
    assert peaks[4_000_000] - peaks[500_000] < bytes_of_more_rows, peaks
