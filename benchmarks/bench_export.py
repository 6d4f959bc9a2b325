"""What an export takes in each number format: time, size, quality lost, and users a second of the program alone.

``python -m benchmarks export run_dir=RUN ...``; the command that a user types, each format in turn. The program's
rate is that of queries and exact lists of ten, over the first 1,000 test users, in this process.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import interleaved, record_name, seconds_of, spread_of, write_result
from configs.errors import ConfigError
from configs.schema import ExportDtype, RunConfig
from train.evaluation.preflight import evaluated_run
from train.export.faiss_index import exported_table, queries_of
from train.export.program import ENCODER, load_program

NUM_ROUNDS = 2
K = 10
_OWN_KEYS = ("export.output", "export.dtype")


def main(overrides: list[str]) -> None:
    """Export in rounds, then use what was exported; write ``results/export.json``."""
    for key in _OWN_KEYS:
        if any(word.startswith(f"{key}=") for word in overrides):
            raise ConfigError(f"{key}: the export benchmark sets it itself; leave it out")
    config = evaluated_run(overrides)
    with tempfile.TemporaryDirectory() as scratch:
        folders = {dtype.value: Path(scratch) / dtype.value for dtype in ExportDtype}

        def seconds_to_export(name: str) -> float:
            words = [*overrides, f"export.dtype={name}", f"export.output={folders[name]}"]
            return seconds_of(lambda: _export(words))

        seconds = interleaved({name: partial(seconds_to_export, name) for name in folders}, NUM_ROUNDS)
        torch.set_num_threads(config.hardware.num_threads)
        rates = interleaved(
            {name: partial(users_per_s, folder, config) for name, folder in folders.items()}, NUM_ROUNDS
        )
        notes = {name: facts_of(folder) for name, folder in folders.items()}
    figures = {f"{name}.export_s": spread_of(runs) for name, runs in seconds.items()}
    figures |= {f"{name}.program_users_per_s": spread_of(runs) for name, runs in rates.items()}
    write_result(record_name("export", config.hardware), overrides, figures, notes)


def facts_of(folder: Path) -> dict[str, Any]:
    """Size of all files and of the item table of the export in ``folder``, and the quality that it lost."""
    card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    sizes = {name: listed["bytes"] for name, listed in card["files"].items()}
    return {
        "bytes": sum(sizes.values()),
        "item_table_bytes": sizes[card["tables"]["item"]["file"]],
        "num_items": card["tables"]["item"]["shape"][0],
        "ndcg@10_loss": card["quality"].get("ndcg@10_loss"),
        "num_test_users": card["quality"].get("users"),
    }


@torch.no_grad()
def users_per_s(folder: Path, config: RunConfig) -> float:
    """Of the export in ``folder``; its files are read before, the histories of the store are part of it."""
    program, vectors = load_program((folder / ENCODER).read_bytes()), exported_table(folder, "item")
    num_users = 0

    def recommend() -> None:
        nonlocal num_users
        query = queries_of(folder, config, program, vectors)
        (query @ vectors.t()).topk(min(K, len(vectors)))
        num_users = len(query)

    taken = seconds_of(recommend)
    return num_users / taken


def _export(words: list[str]) -> None:
    command = [sys.executable, "-m", "launch", "export", *words]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"`shardrec export {' '.join(words)}` failed: {(done.stderr or done.stdout).strip()}")
