"""What a warm start saves: device-seconds to the cold run's best validation NDCG@10, from an old model and anew.

``python -m benchmarks warm_start data.store=STORE ...``; the store's last month is held back as the new days. One
process, two threads unless ``hardware.*`` says otherwise. The folder ``run_dir`` keeps logs, stores and runs.
"""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import record_name, spread_of, write_result
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import DataConfig, RunConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.id_map import raw_items, raw_users
from data_pipeline.store.manifest import Manifest, load_manifest
from train.run import run

DEFAULTS = ["hardware.num_ranks=1", "hardware.num_threads=2", "run_dir=runs/bench_warm_start"]
NEW_MS = 30 * 86_400_000
"""The last month; of a log of less than two months its last tenth."""
METRIC = "valid/ndcg@10"


def main(overrides: list[str]) -> None:
    """Train on the older events, add the new days, train cold and warm; write ``results/warm_start.json``."""
    words = [*DEFAULTS, *overrides]
    config = load_config(words)
    folder = Path(config.run_dir)
    if folder.exists():
        raise ConfigError(f"run_dir={folder} is there already; name a new folder, this benchmark times whole runs")
    manifest = load_manifest(config.data.store, config.data.version)
    num_new = _write_logs(config, manifest, folder)
    store = str(folder / "store")
    prepare(DataConfig(log=str(folder / "old.parquet"), store=store))
    _train(words, store, folder / "old")
    prepare(DataConfig(log=str(folder / "new.parquet"), store=store, append=True))
    _train(words, store, folder / "cold")
    _train([*words, f"init_from={folder / 'old'}"], store, folder / "warm")
    goal = max(quality for _, quality in _course(folder / "cold"))
    seconds = {name: _seconds_to(goal, folder / name) for name in ("cold", "warm")}
    figures = {f"{name}.device_s": spread_of([value]) for name, value in seconds.items() if math.isfinite(value)}
    if math.isfinite(seconds["warm"]):
        figures["warm_to_cold"] = spread_of([seconds["warm"] / seconds["cold"]])
    notes = {
        "cold_best_ndcg@10": goal,
        "warm_best_ndcg@10": max(quality for _, quality in _course(folder / "warm")),
        "warm_first_ndcg@10": _course(folder / "warm")[0][1],
        "num_events": manifest.num_events,
        "num_new_events": num_new,
        "fingerprint": manifest.fingerprint,
    }
    write_result(record_name("warm_start", config.hardware), overrides, figures, notes)
    print(f"validation NDCG@10 of the cold run {goal:.4f}, of the warm run at best {notes['warm_best_ndcg@10']:.4f}")


def _train(words: list[str], store: str, run_dir: Path) -> None:
    own = [*words, f"data.store={store}", f"run_dir={run_dir}"]
    run(load_config(own), own)


def _write_logs(config: RunConfig, manifest: Manifest, folder: Path) -> int:
    """Write the store's events as two logs, the old and the new ones; how many are new."""
    histories = HistoryReader(config.data.store, manifest).read(0, manifest.num_users)
    owner = np.repeat(np.arange(manifest.num_users), np.diff(histories.offsets))
    source = (config.data.store, manifest)
    events = pl.DataFrame(
        {
            "user_id": pl.Series(raw_users(*source)).gather(owner),
            "item_id": pl.Series(raw_items(*source)).gather(histories.item),
            "timestamp": histories.timestamp,
        }
    )
    span = manifest.last_time_ms - manifest.first_time_ms
    is_new = events["timestamp"] > manifest.last_time_ms - (NEW_MS if span > 2 * NEW_MS else span // 10)
    folder.mkdir(parents=True)
    events.filter(~is_new).write_parquet(folder / "old.parquet")
    events.filter(is_new).write_parquet(folder / "new.parquet")
    return int(is_new.sum())


def _course(run_dir: Path) -> list[tuple[float, float]]:
    """Device-seconds and validation NDCG@10 of each validation; one rank."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["elapsed_s"], row[METRIC]) for row in rows if METRIC in row]


def _seconds_to(goal: float, run_dir: Path) -> float:
    """Device-seconds until validation first reaches ``goal``; infinite where it never does."""
    return next((seconds for seconds, quality in _course(run_dir) if quality >= goal), math.inf)
