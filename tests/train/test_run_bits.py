"""A bit turned, or a cut, anywhere in the folder of a run: found, or without any effect."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError, DataError
from configs.load import load_config
from data_pipeline.store.lease_records import FOLDER
from runs import logged_steps, run_here, tiny_run
from train.evaluate import evaluate, main


@pytest.mark.parametrize(
    ("num_flips", "num_cuts"),
    [(4, 2), pytest.param(200, 50, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
def test_a_flip_or_a_cut_is_found_or_changes_nothing(
    store: str, tmp_path: Path, num_flips: int, num_cuts: int, capsys: pytest.CaptureFixture[str]
):
    run_dir, original, draw = tmp_path / "run", tmp_path / "original", random.Random(num_flips)
    run_here(tiny_run(store, run_dir, 4))
    evaluate(load_config(tiny_run(store, run_dir, 4)))
    shutil.copytree(run_dir, original)
    run_here(tiny_run(store, run_dir, 6))
    whole, evaluated = outcome_of(run_dir), (original / "evaluation.json").read_text()
    every = sorted(path.relative_to(original) for path in original.rglob("*") if path.is_file())
    files = [file for file in every if FOLDER not in file.parts]  # a broken lease is waited out: tests of its own
    for trial in range(num_flips + num_cuts):
        shutil.rmtree(run_dir)
        shutil.copytree(original, run_dir)
        file = files[trial % len(files)]
        spoil(run_dir / file, draw, is_cut=trial >= num_flips)
        capsys.readouterr()
        message = refusal_of(tiny_run(store, run_dir, 4 if trial % 3 else 6))
        assert not message or str(run_dir) in message, file
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
        is_lost = any("metrics.jsonl" in line or "/best" in line for line in told)  # what a run can do without
        if not message and trial % 3 == 0 and not is_lost:
            assert outcome_of(run_dir) == whole, file
        shutil.rmtree(run_dir)
        shutil.copytree(original, run_dir)
        spoil(run_dir / file, draw, is_cut=trial >= num_flips)
        capsys.readouterr()
        if main([f"run_dir={run_dir}"]):
            assert file.name in capsys.readouterr().err, file
        else:
            assert (run_dir / "evaluation.json").read_text() == evaluated, file


def refusal_of(overrides: list[str]) -> str:
    """The message of a run that is refused, empty for one that is trained."""
    try:
        run_here(overrides)
    except (ConfigError, DataError) as error:
        return str(error)
    return ""


def outcome_of(folder: Path) -> tuple[Any, ...]:
    """Every loss and the quality, and nothing that a clock has made."""
    summary = json.loads((folder / "summary.json").read_text())
    return [row["loss"] for row in logged_steps(folder)], summary["steps"], summary["best_step"], summary["quality"]


def spoil(path: Path, draw: random.Random, *, is_cut: bool) -> None:
    content = path.read_bytes()
    if not content:
        return
    at = draw.randrange(len(content))
    flipped = content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    path.write_bytes(content[:at] if is_cut else flipped)
