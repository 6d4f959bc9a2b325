"""Ranks that see a shared folder differently, as file systems show it for seconds, go on from one checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from ranks import run_ranks
from runs import logged_steps, run_here

RUN = [
    "model.embedding_dim=8",
    "model.num_blocks=1",
    "model.num_heads=1",
    "data.max_history=8",
    "data.global_batch_size=64",
    "log_every_steps=1",
    "checkpoint.every_steps=2",
    "checkpoint.keep_last=9",
    "evaluation.every_steps=100",
    "evaluation.num_bootstrap_samples=10",
    "nonfinite.max_nonfinite_steps=2",
]
HIDDEN = ["step-00000004", "summary.json", "best"]


@pytest.mark.parametrize("stale_rank", [0, 1])
def test_a_stale_listing_on_one_rank_changes_nothing_but_the_step_that_all_go_on_from(
    store: str, tmp_path: Path, stale_rank: int
):
    overrides = [f"data.store={store}", f"run_dir={tmp_path / 'run'}", *RUN]
    assert run_ranks(2, run_here, [*overrides, "num_steps=4"]) == [0, 0]
    first = logged_steps(tmp_path / "run")
    assert run_ranks(2, run_with_stale_listing, [*overrides, "num_steps=6"], stale_rank) == [0, 0]
    rows = logged_steps(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows[:4]] == [row["loss"] for row in first]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 6


def test_a_finished_run_is_finished_for_all(store: str, tmp_path: Path):
    overrides = [f"data.store={store}", f"run_dir={tmp_path / 'run'}", *RUN, "num_steps=4"]
    assert run_ranks(2, run_here, overrides) == [0, 0]
    before = (tmp_path / "run" / "summary.json").read_bytes()
    assert run_ranks(2, run_with_stale_listing, overrides, 1) == [0, 0]
    assert (tmp_path / "run" / "summary.json").read_bytes() == before


def run_with_stale_listing(overrides: list[str], stale_rank: int) -> int:
    """On ``stale_rank`` the newest entries of the folder are not listed yet, nor found by name when they are asked
    for as a rank that lists would; a file that is opened is there."""
    if dist.get_rank() == stale_rank:
        real_glob, real_is_file = Path.glob, Path.is_file

        def glob(self: Path, pattern: str, **options: Any) -> Any:
            return (path for path in real_glob(self, pattern, **options) if not set(path.parts) & set(HIDDEN))

        def is_file(self: Path) -> bool:
            return real_is_file(self) and not set(self.parts) & set(HIDDEN)

        Path.glob, Path.is_file = glob, is_file  # type: ignore[method-assign]
    return run_here(overrides)
