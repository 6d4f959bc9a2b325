"""Whole sweeps: they end with one index, go on after a kill or a stop, and a run that fails hides no other."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from configs.errors import REQUEUE_EXIT_CODE
from prepared_store import synthetic_store
from processes import family_of, wait_for
from runs import TINY_RUN

pytestmark = pytest.mark.slow


def command(folder: Path, *words: str) -> list[str]:
    keys = [word for word in TINY_RUN if not word.startswith("hardware.num_threads")]
    return [
        sys.executable,
        "-m",
        "launch",
        "sweep",
        f"data.store={folder.parent}/store",
        f"sweep_dir={folder}",
        *keys,
        *words,
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in it."""
    folder = tmp_path_factory.mktemp("sweeps")
    synthetic_store(folder)
    return folder


def rows_of(folder: Path) -> dict[str, dict[str, object]]:
    return {row["run"]: row for row in pl.read_parquet(folder / "sweep.parquet").to_dicts()}


def test_a_run_that_fails_is_named_and_the_others_end(place: Path) -> None:
    folder = place / "fails"
    (folder / "seed=1").mkdir(parents=True)
    (folder / "seed=1" / "events").write_text("a file of somebody, where TensorBoard needs a folder")
    done = subprocess.run(command(folder, "num_steps=2", "seed=1,2"), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert {name: row["state"] for name, row in rows_of(folder).items()} == {"seed=1": "failed", "seed=2": "ended"}
    assert "FileExistsError" in str(rows_of(folder)["seed=1"]["why"])
    assert "failed: seed=1: FileExistsError" in done.stderr


def test_a_sweep_continues_after_a_stop_and_after_a_kill(place: Path) -> None:
    folder = place / "stopped"
    words = ["seed=1,2", "sweep.workers=1", "evaluation.every_steps=20", "checkpoint.every_steps=10"]
    for number, code in ((signal.SIGTERM, REQUEUE_EXIT_CODE), (signal.SIGKILL, -signal.SIGKILL)):
        _end_by(number, command(folder, *words, "num_steps=1000000"), folder / "seed=1", code)
    assert rows_of(folder)["seed=2"]["state"] == "waiting"
    enough = [*words, f"num_steps={_lines_of(folder / 'seed=1') + 10}"]
    done = subprocess.run(command(folder, *enough), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in rows_of(folder).values()} == {"ended"}


def _end_by(number: int, words: list[str], run: Path, code: int) -> None:
    """Send ``number`` to a sweep when ``run`` makes progress; it ends with ``code``, and all its processes end."""
    before = _lines_of(run)
    sweep = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    wait_for(lambda: _lines_of(run) > before + 1)
    family = family_of(sweep.pid)
    os.kill(sweep.pid, number)
    assert sweep.wait() == code
    wait_for(lambda: not any(Path(f"/proc/{process}").exists() for process in family))


def _lines_of(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0
