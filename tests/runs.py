"""Whole runs, and the steps of a run, on the ranks of :func:`ranks.run_ranks`."""

import json
import os
import shutil
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from configs.load import load_config
from data_pipeline.split import Subset
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from train.distributed.collectives import ProcessGroupCollectives
from train.evaluation import protocol
from train.evaluation.protocol import target_ranks_of
from train.objective import Objective
from train.run import build_state, run
from train.step import train_step

NUM_STEPS = 20
"""Of :func:`losses_and_ranks`."""


TINY_RUN = [
    "model.embedding_dim=8",
    "model.num_blocks=1",
    "model.num_heads=1",
    "data.max_history=8",
    "data.global_batch_size=64",
    "hardware.num_ranks=1",
    "hardware.num_threads=1",
    "log_every_steps=1",
    "checkpoint.every_steps=2",
    "evaluation.every_steps=2",
    "evaluation.num_bootstrap_samples=10",
]
"""The smallest model that is worth saving, on one rank, with a checkpoint and a validation every other step."""


def tiny_run(store: str, folder: Path, num_steps: int) -> list[str]:
    """Overrides of a :data:`TINY_RUN` over ``store`` in ``folder``."""
    return [f"data.store={store}", f"run_dir={folder}", *TINY_RUN, f"num_steps={num_steps}"]


def run_here(overrides: list[str]) -> int:
    """Train ``overrides`` to the end on the process group that is there; the exit code."""
    return run(load_config(overrides), overrides)


def run_stopped_at(overrides: list[str], step: int) -> int:
    """The last rank alone gets SIGUSR1 while it trains ``step``."""
    real = Objective.__call__

    def signalled(self: Objective, model: Any, batch: Any, at: int) -> Any:
        if at == step - 1 and dist.get_rank() == dist.get_world_size() - 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(self, model, batch, at)

    Objective.__call__ = signalled  # type: ignore[method-assign]
    return run_here(overrides)


def run_stopped_while_it_ranks(overrides: list[str], subset: str) -> int:
    """The last rank alone gets SIGUSR1 when it reads the second batch of the first ranking of ``subset``."""
    real, is_over = protocol.evaluation_batches, [False]

    def signalled(config: Any, which: Subset, **options: Any) -> Any:
        for number, batch in enumerate(real(config, which, **options)):
            is_due = which.value == subset and options["batch_size"] > 1 and number == 1 and not is_over[0]
            if is_due and dist.get_rank() == dist.get_world_size() - 1:
                is_over[0] = True
                os.kill(os.getpid(), signal.SIGUSR1)
            yield batch

    protocol.evaluation_batches = signalled  # type: ignore[assignment]
    try:
        return run_here(overrides)
    finally:
        protocol.evaluation_batches = real


def losses_and_ranks(overrides: list[str], num_steps: int = NUM_STEPS) -> tuple[list[float], list[float]]:
    """The loss of each of ``num_steps`` steps, and the ranks of the test targets after them."""
    config = load_config(overrides)
    collectives = ProcessGroupCollectives()
    manifest = load_manifest(config.data.store)
    stream = SequenceStream(
        config.data,
        seed=1,
        rank=collectives.rank,
        world_size=collectives.world_size,
        features=config.features_of_events,
    )
    state = build_state(config, manifest, num_steps, collectives, torch.device(config.hardware.device))
    losses = []
    with closing(stream.batches()) as batches:
        for _ in range(num_steps):
            losses.append(float(train_step(state, next(batches)).loss))
            state.step += 1
    return losses, target_ranks_of(state, config, manifest.num_items, Subset.TEST).tolist()


def assert_same_ranks(first: list[float], second: list[float]) -> None:
    """The weights differ in their last bits after 20 steps, which may swap two neighbours, and no more than that.

    A target that is no candidate has the rank infinity.
    """
    assert len(first) == len(second) > 100
    pairs = [pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]]
    assert len(pairs) < 0.02 * len(first)
    assert all(abs(ours - theirs) <= 1 for ours, theirs in pairs)


def without_measurements(row: dict[str, float]) -> dict[str, float]:
    """What a line of ``metrics.jsonl`` says that is the same whenever and wherever a run is trained."""
    measured = ("elapsed_s", "tokens_per_s", "tokens_per_s_per_device", "data_wait_share", "peak_memory_bytes", "mfu")
    return {key: value for key, value in row.items() if key not in measured and not key.startswith("time_s/")}


def logged_steps(folder: Path) -> list[dict[str, float]]:
    """What the run in ``folder`` wrote down of each step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


def assert_resumed(folder: Path, step: int, num_steps: int) -> tuple[list[float], list[float]]:
    """Of :func:`run_cut_and_resume`: the second run trained the steps after ``step`` and no other.

    Returns the losses of every step as the first run and as both runs together wrote them down.
    """
    first, resumed = logged_steps(folder / "first"), logged_steps(folder)
    assert [row["step"] for row in resumed] == list(range(1, num_steps + 1))
    assert resumed[:step] == first[:step], "what was trained before the checkpoint is not trained again"
    again = zip(resumed[step:], first[step:], strict=True)
    assert all(ours["elapsed_s"] != theirs["elapsed_s"] for ours, theirs in again)
    return [row["loss"] for row in first], [row["loss"] for row in resumed]


def run_cut_and_resume(overrides: list[str], folder: str, step: int) -> None:
    """Run to the end; leave what a kill after the checkpoint of ``step`` would have left; run again.

    ``first/metrics.jsonl`` keeps what the first run wrote down. Collective.
    """
    overrides = [*overrides, f"run_dir={folder}"]
    run_here(overrides)
    if not dist.is_initialized() or dist.get_rank() == 0:
        (Path(folder) / "first").mkdir()
        shutil.copy(Path(folder) / "metrics.jsonl", Path(folder) / "first")
        drop_after(Path(folder), step)
    if dist.is_initialized():
        dist.barrier()
    run_here(overrides)


def drop_after(folder: Path, step: int) -> None:
    """Take away what the run in ``folder`` left after the checkpoint of ``step``."""
    (folder / "summary.json").unlink()
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            (checkpoint / "progress.json").unlink()
