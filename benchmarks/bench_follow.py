"""What updates of a model are worth over the days of a log: seconds of each, and NDCG@10 with and without them.

``python -m benchmarks follow run_dir=DIR ...``: the command `shardrec follow` over ``data.log``, by default a made-up
log of 30 days in which tastes move on every fourth day. The folder ``run_dir`` keeps the store and the models.
"""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from benchmarks.harness import record_name, spread_of, write_result
from configs.errors import ConfigError
from configs.overrides import as_typed
from train.follow.folder import read_rows
from train.follow.journey import followed
from train.follow.run import follow
from train.follow.table import BASELINES, METRIC

DEFAULTS = [
    "hardware.num_ranks=1",
    "hardware.num_threads=2",
    "run_dir=runs/bench_follow",
    "follow.update_every=[1,7]",
]
DEFAULTS += ["num_epochs=20", "follow.update_epochs=2", "model.embedding_dim=32", "model.num_blocks=1"]
DAYS, EVENTS_PER_DAY, USERS, TASTES = 30, 1500, 300, 6


def main(overrides: list[str]) -> None:
    """Follow the log, and write ``results/follow.json``."""
    typed = [each.partition("=")[0] for each in overrides]
    words = [*(each for each in DEFAULTS if each.partition("=")[0] not in typed), *overrides]
    run_dir = Path(next(each for each in words if each.startswith("run_dir=")).partition("=")[2])
    if run_dir.exists():
        raise ConfigError(f"run_dir={run_dir} is there already; name a new folder, this benchmark times whole runs")
    if "data.log" not in typed:
        log = run_dir.with_name(f"{run_dir.name}_log.parquet")
        log.parent.mkdir(parents=True, exist_ok=True)
        made_up_log().write_parquet(log)
        words.append(f"data.log={as_typed(str(log))}")
    config = followed(words)
    if code := follow(config, words):
        raise ConfigError(f"the follow was stopped (exit code {code})")
    table = pl.read_parquet(run_dir / "table.parquet").filter(pl.col("targets") > 0)
    models = [f"every_{each}" for each in config.follow.update_every]
    seconds = {f"{name}.update_s": table[f"{name}_device_s"].drop_nulls().to_list() for name in models}
    notes: dict[str, object] = {
        f"{name}.{METRIC}": _mean(table, f"{name}_{METRIC}") for name in ("not_updated", *models, *BASELINES)
    }
    notes |= {"windows": len(read_rows(run_dir, 10**9)), "targets": table["targets"].sum()}
    figures = {name: spread_of(runs) for name, runs in seconds.items() if runs}
    write_result(record_name("follow", config.hardware), overrides, figures, notes)


def made_up_log() -> pl.DataFrame:
    """The log of the docstring: a user likes one of some kinds of items, and another kind every fourth day."""
    draw, rows, begin = random.Random(0), list[tuple[str, str, datetime]](), datetime(2024, 5, 1, tzinfo=UTC)
    for day in range(DAYS):
        for event in range(EVENTS_PER_DAY):
            user = draw.randrange(USERS)
            item = TASTES * draw.randrange(20 + 2 * (day // 3)) + (user + day // 4) % TASTES
            time = begin + timedelta(days=day, seconds=86_400 * event // EVENTS_PER_DAY)
            rows.append((f"u{user}", f"i{item}", time))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


def _mean(table: pl.DataFrame, column: str) -> float:
    """Over all targets of all windows."""
    weights = table["targets"].to_numpy()
    return float((table[column].to_numpy() * weights).sum() / weights.sum())
