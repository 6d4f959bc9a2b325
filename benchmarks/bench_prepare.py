"""How fast a log becomes a store, and in what memory, against the fastest bare query that only builds the lists.

``shardrec bench prepare data.memory_gib=4 [data.log=FOLDER] [data.synthetic.num_users=N ...]``. Two made-up logs, of
N users, N/5 items and 20 N events and of a tenth of each; ``data.log`` says where they are kept for the next time.
Every run is a process of its own; its seconds are without start and imports, its peak is the whole process.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from benchmarks.harness import interleaved, paired_ratio, spread_of, write_result
from benchmarks.large_log import write_large_log
from configs.load import load_config
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare

NUM_USERS = 5_000_000
EVENTS_PER_USER = 20
USERS_PER_ITEM = 5
NUM_ROUNDS = 3


def main(overrides: list[str]) -> None:
    """Prepare the large log once, the small one in turn with the bare queries; write ``results/prepare.json``."""
    config = load_config(overrides).data
    num_users = config.synthetic.num_users or NUM_USERS
    with tempfile.TemporaryDirectory(dir=config.spill_dir or None) as scratch:
        logs = {name: Path(config.log or scratch) / name for name in ("large", "small")}
        for name, users in (("large", num_users), ("small", max(num_users // 10, 1))):
            if not logs[name].is_dir():
                write_large_log(logs[name], users * EVENTS_PER_USER, users, max(users // USERS_PER_ITEM, 1))
        store = f"{scratch}/store"
        large = _measured("prepare", logs["large"], store, config.memory_gib)
        small = _in_turn(logs["small"], store, config.memory_gib)
    fastest = min((name for name in small if name != "prepare"), key=lambda name: spread_of(small[name]).median)
    num_events = num_users * EVENTS_PER_USER
    figures = {
        "large_events_per_s": spread_of([num_events / large["seconds"]]),
        "large_seconds": spread_of([large["seconds"]]),
        "large_cpu_seconds": spread_of([large["cpu_seconds"]]),
        "large_peak_gib": spread_of([large["peak_gib"]]),
        **{f"small_{name}_seconds": spread_of(seconds) for name, seconds in small.items()},
        "small_prepare_against_fastest_lists": paired_ratio(small["prepare"], small[fastest]),
    }
    notes = {
        "num_events": num_events,
        "num_users": num_users,
        "memory_gib": config.memory_gib,
        "small_log": "a tenth of users, items and events",
        "fastest_lists": fastest,
        "duckdb": "measured" if "duckdb_lists" in small else "not installed: not measured",
    }
    write_result("prepare", overrides, figures, notes)


def run(kind: str, log: Path, store: str, memory_gib: float) -> dict[str, float]:
    """Do one of ``KINDS`` here; its seconds, processor seconds, and the peak of this process's memory in GiB."""
    work = KINDS[kind]
    start, processor = time.perf_counter(), time.process_time()
    work(DataConfig(log=str(log), store=store, memory_gib=memory_gib))
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - processor,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _in_turn(log: Path, store: str, memory_gib: float) -> dict[str, list[float]]:
    names = [name for name in KINDS if name != "duckdb_lists" or find_spec("duckdb")]

    def seconds_of(name: str) -> Callable[[], float]:
        return lambda: _measured(name, log, store, memory_gib)["seconds"]

    return interleaved({name: seconds_of(name) for name in names}, NUM_ROUNDS)


def _measured(kind: str, log: Path, store: str, memory_gib: float) -> dict[str, float]:
    """``run`` in a process of its own, to a store that is not there yet."""
    with tempfile.TemporaryDirectory(dir=Path(store).parent) as folder:
        arguments = [kind, str(log), f"{folder}/store", str(memory_gib)]
        command = [sys.executable, "-m", "benchmarks.bench_prepare", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _polars_lists(config: DataConfig) -> pl.DataFrame:
    item, time = pl.col("item_id"), pl.col("timestamp")
    lists = pl.scan_parquet(f"{config.log}/*.parquet").group_by("user_id").agg(item.sort_by(time), time.sort())
    return lists.collect(engine="streaming")


def _polars_sorted_lists(config: DataConfig) -> pl.DataFrame:
    events = pl.scan_parquet(f"{config.log}/*.parquet").sort("user_id", "timestamp", maintain_order=True)
    return events.group_by("user_id", maintain_order=True).agg("item_id", "timestamp").collect(engine="streaming")


def _duckdb_lists(config: DataConfig) -> object:
    import duckdb  # a development extra

    query = """select user_id, list(item_id order by timestamp), list(timestamp order by timestamp)
               from read_parquet(?) group by user_id"""
    lists = duckdb.sql(query, params=[f"{config.log}/*.parquet"])
    assert lists is not None, "a select gives rows"
    return lists.to_arrow_table()


KINDS: dict[str, Callable[[DataConfig], object]] = {
    "prepare": prepare,
    "polars_lists": _polars_lists,
    "polars_sorted_lists": _polars_sorted_lists,
    "duckdb_lists": _duckdb_lists,
}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))))
