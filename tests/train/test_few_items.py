"""World size does not matter where items are fewer than the ranks can share: some rank has no row of the table."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.load import load_config
from data_pipeline.split import Subset
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from ranks import run_ranks
from stores import random_histories, write_store
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives
from train.evaluation.protocol import target_ranks_of
from train.progress import RunProgress
from train.run import build_state
from train.step import train_step

RUN = [
    "model.embedding_dim=8",
    "model.num_blocks=1",
    "model.num_heads=1",
    "model.dropout=0",
    "model.attention_dropout=0",
    "data.max_history=8",
    "data.global_batch_size=16",
    "evaluation.batch_size=8",
    "evaluation.leave_out_seen=false",
    "checkpoint.asynchronous=false",
]
LOSSES = {"full": ["loss=full_softmax"], "sampled": ["loss=sampled_softmax", "loss.num_negatives=3"]}
NUM_STEPS = 4


@pytest.mark.parametrize(
    ("world_size", "numbers"),
    [
        (2, [1, 2]),
        (4, [9]),
        pytest.param(2, range(1, 41), marks=pytest.mark.slow),
        pytest.param(4, range(1, 41), marks=pytest.mark.slow),
        pytest.param(8, [*range(1, 41), 49], marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
    ids=str,
)
def test_the_number_of_ranks_does_not_change_the_losses(tmp_path: Path, world_size: int, numbers: Any):
    stores = {num_items: store_of(num_items, tmp_path) for num_items in numbers}
    one = run_ranks(1, losses_and_ranks, stores, str(tmp_path / "one"))[0]
    many = run_ranks(world_size, losses_and_ranks, stores, str(tmp_path / "many"))
    for found in many:
        for key, (losses, ranks) in found.items():
            np.testing.assert_allclose(losses, one[key][0], rtol=1e-5, atol=1e-6, err_msg=str(key))
            assert sorted(ranks) == sorted(one[key][1]), key


def store_of(num_items: int, folder: Path) -> str:
    items, times = random_histories(24, seed=num_items, longest=8)
    items = [[item % num_items for item in history] for history in items]
    return write_store(folder / f"store-{num_items}", items, times, num_items=num_items)


def losses_and_ranks(
    stores: dict[int, str], folder: str
) -> dict[tuple[int, str, str], tuple[list[float], list[float]]]:
    """Of each number of items, loss and plan: the losses, a checkpoint being saved and restored in the middle, and
    the ranks of the test targets."""
    return {
        (num_items, loss, plan): _losses_and_ranks(
            [f"data.store={store}", *RUN, *LOSSES[loss], f"sharding={plan}"], f"{folder}/{num_items}-{loss}-{plan}"
        )
        for num_items, store in stores.items()
        for loss, plan in (("full", "planner"), ("full", "row_wise"), ("sampled", "row_wise"))
    }


def _losses_and_ranks(overrides: list[str], run_dir: str) -> tuple[list[float], list[float]]:
    config, collectives = load_config(overrides), ProcessGroupCollectives()
    manifest = load_manifest(config.data.store)
    state = build_state(config, manifest, NUM_STEPS, collectives, torch.device("cpu"))
    stream = SequenceStream(config.data, seed=1, rank=collectives.rank, world_size=collectives.world_size)
    losses = []
    with (
        closing(stream.batches()) as batches,
        DiskCheckpointer(run_dir, config.checkpoint) as checkpointer,
    ):
        for _ in range(NUM_STEPS):
            losses.append(float(train_step(state, next(batches)).loss))
            state.step += 1
            if state.step == NUM_STEPS // 2:
                checkpointer.save(state, RunProgress())
                state = build_state(config, manifest, NUM_STEPS, collectives, torch.device("cpu"))
                checkpointer.restore_latest(state)
    return losses, target_ranks_of(state, config, manifest.num_items, Subset.TEST).tolist()
