"""The whole ranking path, from the store to ranks over a sharded table, against NumPy on the gathered vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import DataError
from configs.load import load_config
from data_pipeline.split import Subset
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import evaluation_batches
from ranks import run_ranks
from stores import random_histories, write_store
from train.distributed.collectives import ProcessGroupCollectives
from train.evaluation.protocol import Validator, require_targets, target_ranks_of
from train.run import build_state

NUM_ITEMS = 50


def ours_and_brute_force(overrides: list[str]) -> tuple[list[float], list[float], float, float]:
    """Ranks and the mean loss of the targets, each of the product and by brute force."""
    config = load_config(overrides)
    state = build_state(config, load_manifest(config.data.store), 1, ProcessGroupCollectives(), torch.device("cpu"))
    ours = target_ranks_of(state, config, NUM_ITEMS, Subset.TEST)
    config.evaluation.metric = "loss"
    loss = Validator(config, load_manifest(config.data.store), 1, subset=Subset.TEST).quality(state)["loss"]
    brute, brute_losses = [], []
    for batch in evaluation_batches(config.data, Subset.TEST, batch_size=7, rank=0, world_size=1):
        with torch.no_grad():
            found = state.model(batch.history, torch.arange(NUM_ITEMS), is_training=False)
        score = found.query.numpy().astype(np.float64) @ found.candidate_vector.numpy().astype(np.float64).T
        seen = np.split(batch.seen.numpy(), np.cumsum(batch.seen_lengths.numpy())[:-1])
        for row, target, left_out in zip(score, batch.target.tolist(), seen, strict=True):
            brute.append(_rank(row, target, set(left_out.tolist())))
            brute_losses.append(np.log(np.exp(row).sum()) - row[target])
    return sorted(ours.tolist()), sorted(brute), loss, float(np.mean(brute_losses))


def _rank(score: np.ndarray, target: int, left_out: set[int]) -> float:
    if target in left_out:
        return float("inf")
    return 1.0 + sum(score[other] > score[target] for other in range(NUM_ITEMS) if other not in left_out)


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_and_the_loss_of_targets_equal_brute_force_on_the_gathered_table(tmp_path: Path, world_size: int):
    items, timestamps = random_histories(41, longest=30)
    store = tmp_path / "store"
    write_store(store, items, timestamps, num_items=NUM_ITEMS, row_group_users=8)
    overrides = [f"data.store={store}", "model.embedding_dim=8", "model.initial_std=0.5", "sharding=row_wise"]
    overrides += ["data.max_history=9", "evaluation.batch_size=4"]
    for ours, brute, loss, brute_loss in run_ranks(world_size, ours_and_brute_force, overrides):
        assert len(ours) > 30
        assert ours == brute
        assert loss == pytest.approx(brute_loss, rel=1e-6)


def test_a_store_with_nobody_to_rank_is_refused_before_training(tmp_path: Path):
    store = write_store(tmp_path / "store", [[1, 2], [3]], [[1, 2], [3]], num_items=NUM_ITEMS)
    config = load_config([f"data.store={store}"])
    with pytest.raises(DataError, match=r"valid target under data\.split=leave_one_out"):
        require_targets(config, load_manifest(store))
