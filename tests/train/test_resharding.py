"""A run goes on under another sharding and another number of ranks with the losses that it would have had."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import ConfigError
from configs.load import load_config
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from ranks import run_ranks
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives
from train.progress import RunProgress
from train.run import build_state
from train.state import TrainState
from train.step import train_step

PLANS = ["row_wise", "table_wise", "column_wise", "data_parallel"]
RATES = {"rowwise_adagrad": 0.05, "adagrad": 0.05, "adam": 0.002, "sgd": 20.0}
RUN = [
    "model.embedding_dim=8",
    "model.num_blocks=1",
    "model.num_heads=1",
    "model.user_input=add",
    "model.dropout=0",
    "model.attention_dropout=0",
    "data.max_history=12",
    "data.global_batch_size=32",
    "optimizer.warmup_steps=2",
    "checkpoint.asynchronous=false",
]
CUT, END = 3, 6


@pytest.mark.parametrize(
    "optimizer", [next(iter(RATES)), *(pytest.param(name, marks=pytest.mark.slow) for name in list(RATES)[1:])]
)
def test_every_pair_of_shardings_goes_on_or_is_refused_by_key(store: str, tmp_path: Path, optimizer: str):
    overrides = [
        f"data.store={store}",
        *RUN,
        f"optimizer.table={optimizer}",
        f"optimizer.table_lr={RATES[optimizer]}",
    ]
    for found in run_ranks(2, losses_of_pairs, overrides, str(tmp_path)):
        whole = found.pop(("row_wise", "row_wise"))
        assert isinstance(whole, list)
        for (first, second), losses in found.items():
            if "column_wise" in (first, second) and optimizer == "rowwise_adagrad":
                assert "sharding.strategy=column_wise with optimizer.table=rowwise_adagrad" in losses
            else:
                np.testing.assert_allclose(losses, whole, rtol=1e-5, err_msg=f"{first} to {second}")


@pytest.mark.parametrize("optimizer", [pytest.param("rowwise_adagrad", marks=pytest.mark.slow), "adam"])
def test_another_number_of_ranks_goes_on(store: str, tmp_path: Path, optimizer: str):
    overrides = [
        f"data.store={store}",
        *RUN,
        f"optimizer.table={optimizer}",
        f"optimizer.table_lr={RATES[optimizer]}",
    ]
    folders = {
        plan: str(tmp_path / plan) for plan in PLANS if (plan, optimizer) != ("column_wise", "rowwise_adagrad")
    }
    first = run_ranks(2, first_losses, overrides, folders)[0]
    for world_size in (1, 4):
        for losses in run_ranks(world_size, later_losses, overrides, folders):
            for plan in folders:
                np.testing.assert_allclose(
                    [*first[plan][:CUT], *losses[plan]], first[plan], rtol=1e-5, err_msg=f"{plan}, {world_size} ranks"
                )


def losses_of_pairs(overrides: list[str], folder: str) -> dict[tuple[str, str], Any]:
    """Of each pair of plans, the losses of a run that changes from one to the other at ``CUT``, or the refusal."""
    found: dict[tuple[str, str], Any] = {}
    for first in PLANS:
        try:
            losses = trained(overrides, first, f"{folder}/{first}", CUT)
        except ConfigError as error:
            found |= {(first, second): str(error) for second in PLANS}
            continue
        for second in PLANS:
            try:
                found[first, second] = losses + trained(overrides, second, f"{folder}/{first}", END)
            except ConfigError as error:
                found[first, second] = str(error)
    return found


def first_losses(overrides: list[str], folders: dict[str, str]) -> dict[str, list[float]]:
    """The losses of all steps of each plan; a checkpoint of ``CUT`` is left."""
    return {plan: trained(overrides, plan, folder, END, save_at=CUT) for plan, folder in folders.items()}


def later_losses(overrides: list[str], folders: dict[str, str]) -> dict[str, list[float]]:
    """The losses of the steps after ``CUT``, under the plan of the first session."""
    return {plan: trained(overrides, plan, folder, END) for plan, folder in folders.items()}


def trained(overrides: list[str], plan: str, run_dir: str, end: int, save_at: int | None = None) -> list[float]:
    """The losses of the steps from the checkpoint in ``run_dir``, if any, to ``end``; saved at ``CUT``."""
    config = load_config([*overrides, f"sharding={plan}"])
    collectives = ProcessGroupCollectives()
    state: TrainState = build_state(config, load_manifest(config.data.store), END, collectives, torch.device("cpu"))
    stream = SequenceStream(config.data, seed=1, rank=collectives.rank, world_size=collectives.world_size)
    losses = []
    with DiskCheckpointer(run_dir, config.checkpoint) as checkpointer:
        checkpointer.restore_latest(state)
        with closing(stream.batches(start=state.step)) as batches:
            while state.step < end:
                losses.append(float(train_step(state, next(batches)).loss))
                state.step += 1
                if state.step == (save_at or CUT) and not checkpointer.has_steps():
                    checkpointer.save(state, RunProgress())
    return losses
