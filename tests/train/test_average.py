"""The moving average of the weights: what it is, where it is used, and that training does not notice it."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from configs.flatten import flat
from configs.load import load_config
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from ranks import run_ranks
from runs import run_here, run_stopped_while_it_ranks, tiny_run, without_measurements
from train.distributed.collectives import ProcessGroupCollectives
from train.evaluate import evaluate
from train.run import build_state
from train.run_dir.identity import load_run_config
from train.sharding import local_shards
from train.state import TrainState
from train.step import train_step

DECAY = 0.6
AVERAGE = f"optimizer.ema_decay={DECAY}"
RATES = ["optimizer.warmup_steps=0", "optimizer.lr=0.02", "optimizer.table_lr=0.3"]


@pytest.fixture(scope="module")
def run(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an average, whose checkpoints are all kept."""
    folder = tmp_path_factory.mktemp("run")
    run_here([*tiny_run(store, folder, 6), *RATES, AVERAGE, "checkpoint.keep_last=9"])
    return folder


def test_the_best_model_is_the_average_and_steps_keep_both(run: Path):
    best_step = json.loads((run / "summary.json").read_text())["best_step"]
    best, step = (tensors_of(run, name) for name in ("best", f"step-{best_step:08d}"))
    weights = [name.removeprefix("average.") for name in step if name.startswith("average.")]
    assert "tables.embeddings.item.weight" in weights
    assert not any(name.startswith("average.") for name in best)
    for name in weights:
        np.testing.assert_array_equal(best[f"model.{name}"], step[f"average.{name}"])
    item = "model.tables.embeddings.item.weight"
    assert not np.array_equal(best[item], step[item])


def test_training_does_not_notice_the_average_and_validation_does(run: Path, store: str, tmp_path: Path):
    run_here([*tiny_run(store, tmp_path, 6), *RATES])
    ours, without = lines_of(run), lines_of(tmp_path)
    assert [row["loss"] for row in ours if "loss" in row] == [row["loss"] for row in without if "loss" in row]
    assert [row for row in ours if "valid/mrr@50" in row] != [row for row in without if "valid/mrr@50" in row]


def test_evaluate_finds_the_quality_that_the_run_told(run: Path):
    told = json.loads((run / "summary.json").read_text())["quality"]["test"]
    evaluate(load_run_config(str(run)))
    assert json.loads((run / "evaluation.json").read_text())["test"] == told


def test_the_model_to_ship_is_the_average_too(store: str, tmp_path: Path):
    run_here([*tiny_run(store, tmp_path, 4), *RATES, AVERAGE, "data.split=none"])
    final, step = tensors_of(tmp_path, "final"), tensors_of(tmp_path, "step-00000004")
    item = "tables.embeddings.item.weight"
    np.testing.assert_array_equal(final[f"model.{item}"], step[f"average.{item}"])


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_average_is_that_of_the_weights_after_each_step_on_any_number_of_ranks(store: str, world_size: int):
    overrides = [f"data.store={store}", "model.embedding_dim=8", "data.global_batch_size=32", *RATES, AVERAGE]
    for average, by_hand in run_ranks(world_size, average_and_by_hand, [*overrides, "sharding=row_wise"]):
        np.testing.assert_allclose(average, by_hand, rtol=1e-5, atol=1e-7)


def test_a_stop_in_a_validation_leaves_weights_and_average_as_they_were(run: Path, store: str, tmp_path: Path):
    overrides = [*tiny_run(store, tmp_path, 6), *RATES, AVERAGE, "checkpoint.keep_last=9", "evaluation.batch_size=64"]
    assert run_ranks(1, stopped_and_resumed, overrides) == [(75, 0)]
    assert lines_of(tmp_path) == lines_of(run)


@pytest.mark.slow
def test_the_average_goes_on_at_another_number_of_ranks(store: str, tmp_path: Path):
    choices = [*RATES, AVERAGE, "evaluation.metric=loss", "optimizer.schedule=constant", "sharding=row_wise"]
    choices += ["model.dropout=0", "model.attention_dropout=0"]
    run_ranks(1, run_here, [*tiny_run(store, tmp_path / "whole", 6), *choices])
    for world_size, num_steps in ((2, 4), (1, 6)):
        run_ranks(world_size, run_here, [*tiny_run(store, tmp_path / "moved", num_steps), *choices])
    whole, moved = (
        [row["valid/loss"] for row in lines_of(tmp_path / name) if "valid/loss" in row] for name in ("whole", "moved")
    )
    assert len(whole) == 3
    np.testing.assert_allclose(moved, whole, rtol=1e-5)


def stopped_and_resumed(overrides: list[str]) -> tuple[int, int]:
    return run_stopped_while_it_ranks(overrides, "valid"), run_here(overrides)


def average_and_by_hand(overrides: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of this rank's weights, after four steps."""
    config, collectives = load_config(overrides), ProcessGroupCollectives()
    state = build_state(config, load_manifest(config.data.store), 9, collectives, torch.device("cpu"))
    stream = SequenceStream(config.data, seed=1, rank=collectives.rank, world_size=collectives.world_size)
    assert state.average is not None
    expected = weights_of(state)
    with closing(stream.batches()) as batches:
        for step in range(4):
            train_step(state, next(batches))
            state.step += 1
            decay = min(DECAY, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * weights_of(state)
    return flattened([part for parts in state.average.parts.values() for part in parts]), expected


def weights_of(state: TrainState) -> np.ndarray:
    """This rank's, end to end."""
    return flattened([part for _, weight in flat(state.model.state_dict()) for part, _ in local_shards(weight)])


def flattened(parts: list[torch.Tensor]) -> np.ndarray:
    return np.concatenate([part.detach().numpy().ravel() for part in parts])


def tensors_of(run_dir: Path, checkpoint: str) -> dict[str, np.ndarray]:
    """Of a run on one rank."""
    return load_file(run_dir / "checkpoints" / checkpoint / "rank-00000.safetensors")


def lines_of(run_dir: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [without_measurements(row) for row in rows]
