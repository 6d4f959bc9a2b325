"""How many users a second get their best items, by the command that a user types.

``python -m benchmarks recommend run_dir=RUN ...``; one rank with two threads and two ranks with one, in turn. The
rate is the one that the command prints: what it takes to start is left out.
"""

import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import polars as pl

from benchmarks.harness import interleaved, record_name, spread_of, write_result
from configs.errors import ConfigError
from data_pipeline.store.manifest import load_manifest
from train.evaluation.preflight import evaluated_run

NUM_ROUNDS = 3
LAYOUTS = {"1_rank": (1, 2), "2_ranks": (2, 1)}
"""Ranks and threads of each."""
_RATE = re.compile(r"\(([\d,]+) (?:users|items)/s\)$", re.MULTILINE)
_OWN_KEYS = ("recommend.output", "hardware.num_ranks", "hardware.num_threads")


def main(overrides: list[str]) -> None:
    """Run the command in rounds, compare its files; write ``results/recommend.json``."""
    for key in _OWN_KEYS:
        if any(word.startswith(f"{key}=") for word in overrides):
            raise ConfigError(f"{key}: the recommend benchmark sets it itself; leave it out")
    config = evaluated_run(overrides)
    manifest = load_manifest(config.data.store, config.data.version)
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: Path(folder) / f"{name}.parquet" for name in LAYOUTS}

        def rate_of(name: str) -> float:
            num_ranks, num_threads = LAYOUTS[name]
            hardware = [f"hardware.num_ranks={num_ranks}", f"hardware.num_threads={num_threads}"]
            return _printed_rate([*overrides, *hardware, f"recommend.output={outputs[name]}"])

        rates = interleaved({name: partial(rate_of, name) for name in LAYOUTS}, NUM_ROUNDS)
        notes = {
            "num_rows": len(pl.read_parquet(outputs["1_rank"])),
            "is_same_file": len({path.read_bytes() for path in outputs.values()}) == 1,
            "num_users": manifest.num_users,
            "num_items": manifest.num_items,
            "batch_size": config.recommend.batch_size,
            "embedding_dim": config.model.embedding_dim,
            "max_history": config.data.max_history,
            "fingerprint": manifest.fingerprint,
        }
    figures = {f"{name}.users_per_s": spread_of(runs) for name, runs in rates.items()}
    write_result(record_name("recommend", config.hardware), overrides, figures, notes)


def _printed_rate(words: list[str]) -> float:
    """Users a second as ``shardrec recommend`` prints it."""
    command = [sys.executable, "-m", "launch", "recommend", *words]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    rate = rate_in(done.stdout)
    if done.returncode or rate is None:
        raise ConfigError(f"`shardrec recommend {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()}")
    return rate


def rate_in(told: str) -> float | None:
    """The rate in what the command prints; None where there is none."""
    found = _RATE.search(told)
    return None if found is None else float(found[1].replace(",", ""))
