"""Clipping by the whole gradient's norm, micro-batches, and what going backward in stages must not change."""

import json
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from configs.load import load_config
from data_pipeline.batch import SequenceBatch
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from ranks import run_ranks
from runs import losses_and_ranks, run_cut_and_resume, without_measurements
from train.distributed.collectives import ProcessGroupCollectives
from train.objective import Objective
from train.run import build_state
from train.sharding import dense_parameters, local_shards, table_weights
from train.state import TrainState
from train.step import train_step

MODEL = ["model.embedding_dim=16", "data.max_history=12", "data.global_batch_size=32", "model.user_input=add"]
SMALL = [*MODEL, "model.dropout=0", "model.attention_dropout=0", "evaluation.batch_size=256"]
NUM_STEPS = 5
EVERYTHING = ["optimizer.schedule=linear", "optimizer.clip_norm=0.02", "hardware.micro_batches=3"]
EVERYTHING += ["optimizer.ema_decay=0.9", "optimizer.table_weight_decay=0.1", "evaluation.metric=loss"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_stages_alone_change_no_bit_of_a_loss(store: str, world_size: int):
    """A clip that no gradient reaches goes backward in stages and clips nothing; dropout is drawn alike."""
    overrides = [f"data.store={store}", *MODEL]
    for plain, staged in run_ranks(world_size, losses_of, overrides, [], ["optimizer.clip_norm=1e6"]):
        assert staged == plain


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param(["loss=full_softmax", "sharding=row_wise"], marks=pytest.mark.slow),
        ["loss=sampled_softmax", "loss.num_negatives=16", "loss.in_batch_negatives=8", "sharding=table_wise"],
        pytest.param(["model=bert4rec", "model.user_input=none"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_micro_batches_are_one_large_batch_on_any_number_of_ranks(store: str, choices: list[str]):
    overrides = [f"data.store={store}", *SMALL, *choices]
    whole, cut = run_ranks(1, losses_of, overrides, [], ["hardware.micro_batches=3"])[0]
    on_two = run_ranks(2, losses_of, overrides, ["hardware.micro_batches=50"])
    np.testing.assert_allclose(cut, whole, rtol=1e-5)
    np.testing.assert_allclose(on_two[0][0], whole, rtol=1e-5)
    assert on_two[0] == on_two[1]


@pytest.mark.parametrize(
    "choices",
    [
        ["sharding=row_wise", "optimizer.table=adagrad"],
        ["sharding=table_wise", "loss=bce"],
        ["sharding=column_wise", "optimizer.table=sgd", "optimizer.table_lr=100"],
        ["sharding=data_parallel", "optimizer.table=adam"],
    ],
    ids=str,
)
def test_clipping_does_not_depend_on_ranks_or_plan(store: str, choices: list[str]):
    overrides = [f"data.store={store}", *SMALL, *choices, "optimizer.clip_norm=0.01"]
    one, two = (run_ranks(world_size, losses_of, overrides, [])[0] for world_size in (1, 2))
    np.testing.assert_allclose(two, one, rtol=1e-5)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_clipped_step_moves_the_tables_by_the_share_that_the_whole_norm_says(store: str, world_size: int):
    overrides = [f"data.store={store}", *SMALL, "optimizer.table=sgd", "optimizer.table_lr=0.5", "sharding=row_wise"]
    free, clipped = zip(*run_ranks(world_size, steps_free_and_clipped, overrides), strict=True)
    squares = sum(float((rank["moved"] ** 2).sum()) for rank in free) / 0.5**2 + free[0]["dense_square"]
    assert free[0]["norm"] == pytest.approx(squares**0.5, rel=1e-4), (
        "that of the tables' own moves and the dense part"
    )
    for before, after in zip(free, clipped, strict=True):
        assert (before["is_clipped"], after["is_clipped"]) == (None, True)
        assert after["norm"] == pytest.approx(free[0]["norm"], rel=1e-6), "it is told as it was before the clip"
        np.testing.assert_allclose(after["moved"], before["moved"] / 4, rtol=1e-3, atol=1e-7)
        assert after["dense_square"] == pytest.approx(before["dense_square"] / 16, rel=1e-5)


@pytest.mark.parametrize("choices", [["optimizer.table=adam"], ["optimizer.table=rowwise_adagrad"]], ids=str)
def test_a_step_in_stages_that_is_not_finite_on_one_rank_changes_nothing(store: str, choices: list[str]):
    overrides = [f"data.store={store}", *SMALL, *choices, "optimizer.clip_norm=1", "hardware.micro_batches=2"]
    for before, after, is_finite, next_is_finite in run_ranks(2, step_with_bad_number, overrides):
        assert not is_finite
        assert next_is_finite
        np.testing.assert_array_equal(after, before)


def test_parts_of_a_batch_hold_all_of_it_in_order_and_alike():
    lengths = torch.tensor([3, 1, 9, 2, 2, 1])
    item = torch.arange(18)
    batch = SequenceBatch(
        item, lengths, torch.arange(6), item * 10, {"price": item.float()}, asked_at=lengths * 7, is_hidden=item > 8
    )
    columns = [field.name for field in fields(batch)]
    assert all(getattr(batch, column) is not None for column in columns), "a part must have every column"
    for num_parts in (1, 2, 4, 20):
        parts = batch.split(batch.sizes_of_parts(num_parts))
        assert len(parts) == num_parts
        for column in columns:
            joined = [column_of(part, column) for part in parts]
            torch.testing.assert_close(torch.cat(joined), column_of(batch, column))
        assert all(int(part.lengths.sum()) == part.num_tokens == len(part.features["price"]) for part in parts)
    assert [part.num_tokens for part in batch.split(batch.sizes_of_parts(2))] == [13, 5]


def test_a_rank_without_users_has_as_many_parts():
    none = torch.zeros(0, dtype=torch.int64)
    empty = SequenceBatch(none, none, none, none)
    assert [part.num_users for part in empty.split(empty.sizes_of_parts(3))] == [0, 0, 0]


def column_of(batch: SequenceBatch, name: str) -> torch.Tensor:
    value = getattr(batch, name)
    return value["price"] if name == "features" else value


def losses_of(overrides: list[str], *variants: list[str]) -> list[list[float]]:
    """Of each variant of the run."""
    return [losses_and_ranks([*overrides, *each], NUM_STEPS)[0] for each in variants]


def steps_free_and_clipped(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first step of a run, and the same where gradients may be a fourth as long."""
    free = first_step(overrides)
    return free, first_step([*overrides, f"optimizer.clip_norm={free['norm'] / 4}"])


def first_step(overrides: list[str]) -> dict[str, Any]:
    """What one step, at the full rate, does to this rank's tables and finds in the dense part."""
    state, batches = begun(overrides)
    before = tables_of(state)
    with closing(batches):
        metrics = train_step(state, next(batches), is_measured=True)
    dense = [weight.grad for weight in dense_parameters(state.model).values() if weight.grad is not None]
    return {
        "norm": metrics.gradient_norm,
        "is_clipped": metrics.is_clipped,
        "moved": before - tables_of(state),
        "dense_square": float(sum((gradient.double() ** 2).sum() for gradient in dense)),
    }


def step_with_bad_number(overrides: list[str]) -> tuple[np.ndarray, np.ndarray, bool, bool]:
    """The tables around a step that is bad on rank 1 alone, whether it was finite, and whether the next one was."""
    state, batches = begun(overrides)
    real, is_bad = Objective.total, [False]

    def broken(self: Objective, *arguments: Any) -> torch.Tensor:
        total = real(self, *arguments)
        return total * float("nan") if is_bad[0] and dist.get_rank() == 1 else total

    Objective.total = broken  # type: ignore[method-assign]
    with closing(batches):
        train_step(state, next(batches))
        before, is_bad[0] = tables_of(state), True
        is_finite = train_step(state, next(batches)).is_finite
        after, is_bad[0] = tables_of(state), False
        return before, after, is_finite, train_step(state, next(batches)).is_finite


def begun(overrides: list[str]) -> tuple[TrainState, Any]:
    config = load_config([*overrides, "optimizer.warmup_steps=0"])
    collectives = ProcessGroupCollectives()
    manifest = load_manifest(config.data.store)
    stream = SequenceStream(config.data, seed=1, rank=collectives.rank, world_size=collectives.world_size)
    return build_state(config, manifest, NUM_STEPS, collectives, torch.device("cpu")), stream.batches()


def tables_of(state: TrainState) -> np.ndarray:
    """This rank's shards, end to end."""
    weights = [part for weight in table_weights(state.model).values() for part, _ in local_shards(weight)]
    return torch.cat([part.detach().flatten() for part in weights]).double().numpy()


@pytest.mark.slow
def test_a_resumed_run_with_everything_on_repeats_its_lines_bit_for_bit(store: str, tmp_path: Path):
    overrides = [f"data.store={store}", *MODEL, "hardware.num_ranks=2", *EVERYTHING, "num_steps=8"]
    overrides += [
        "log_every_steps=2",
        "checkpoint.every_steps=5",
        "checkpoint.keep_last=9",
        "evaluation.every_steps=4",
    ]
    run_ranks(2, run_cut_and_resume, overrides, str(tmp_path / "run"), 5)
    first, resumed = (lines_of(tmp_path / "run" / name) for name in ("first/metrics.jsonl", "metrics.jsonl"))
    assert resumed == first
    assert {"lr", "table_lr", "gradient_norm", "clipped_share"} < first[0].keys()
    assert max(row.get("clipped_share", 0.0) for row in first) > 0


def lines_of(path: Path) -> list[dict[str, float]]:
    """All that does not hang on the clock."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [without_measurements(row) for row in rows]
