"""World size, plan and interruption do not matter: the laws of the training path, on real ranks."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor
from torchrec import KeyedJaggedTensor

from configs.errors import ConfigError
from models import recommender
from ranks import run_ranks
from runs import (
    assert_resumed,
    assert_same_ranks,
    drop_after,
    logged_steps,
    losses_and_ranks,
    run_cut_and_resume,
    run_here,
)

MODEL = ["model.embedding_dim=16", "model.feed_forward_dim=16", "data.max_history=12", "data.global_batch_size=32"]
RESUMABLE = ["num_steps=12", "log_every_steps=1", "checkpoint.every_steps=5", "checkpoint.keep_last=9"]
NO_DROPOUT = ["model.dropout=0", "model.attention_dropout=0"]


@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax", "bce", "gbce"])
def test_the_number_of_ranks_does_not_change_the_losses(store: str, loss: str):
    overrides = [f"data.store={store}", *MODEL, *NO_DROPOUT, f"loss={loss}", "model.user_input=add"]
    if loss != "full_softmax":
        overrides += ["loss.num_negatives=16", "loss.in_batch_negatives=8"]
    one, two = run_ranks(1, losses_and_ranks, overrides)[0], run_ranks(2, losses_and_ranks, overrides)
    np.testing.assert_allclose(two[0][0], one[0], rtol=1e-5)
    assert two[0] == two[1]
    assert_same_ranks(two[0][1], one[1])
    assert one[0][-1] < one[0][0]


def test_looking_up_an_id_a_row_as_on_a_gpu_changes_nothing_where_a_rank_has_no_ids_either(store: str):
    overrides = [f"data.store={store}", *MODEL, *NO_DROPOUT, "evaluation.batch_size=37", "sharding=row_wise"]
    one, four = on_one_rank(tuple(overrides)), run_ranks(4, losses_and_ranks_by_rows, overrides)
    for losses, ranks, _ in four:
        np.testing.assert_allclose(losses, one[0], rtol=1e-5)
        assert_same_ranks(sorted(ranks), sorted(one[1]))  # batches of the ranks come in turn
    assert min(fewest for _, _, fewest in four) == 0, "37 and 38 users a rank: some have a batch more than the others"


PLANS = ["row_wise", "table_wise", "column_wise", "data_parallel"]
RATES = {"sgd": "20", "adam": "0.002", "adagrad": "0.05", "rowwise_adagrad": "0.05"}


@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [
        *((plan, "sgd") for plan in PLANS),
        *(pytest.param(plan, "adam", marks=pytest.mark.slow) for plan in PLANS),
        *((plan, "rowwise_adagrad") for plan in PLANS if plan != "column_wise"),
        ("column_wise", "adagrad"),
    ],
)
def test_the_plan_does_not_change_the_losses(store: str, strategy: str, optimizer: str):
    overrides = [f"data.store={store}", *MODEL, *NO_DROPOUT, f"optimizer.table={optimizer}"]
    overrides += [f"optimizer.table_lr={RATES[optimizer]}", "model.user_input=first_token"]
    one = on_one_rank(tuple(overrides))
    two = run_ranks(2, losses_and_ranks, [*overrides, f"sharding={strategy}"])
    np.testing.assert_allclose(two[0][0], one[0], rtol=1e-5)
    assert_same_ranks(two[0][1], one[1])


@pytest.mark.parametrize(
    ("world_size", "choices"),
    [
        (1, ["optimizer.table=rowwise_adagrad"]),
        pytest.param(1, ["optimizer.table=adam"], marks=pytest.mark.slow),
        (2, ["optimizer.table=rowwise_adagrad", "sharding=row_wise"]),
        pytest.param(2, ["optimizer.table=adam", "sharding=row_wise"], marks=pytest.mark.slow),
        pytest.param(2, ["optimizer.table=adam", "sharding=table_wise"], marks=pytest.mark.slow),
        (2, ["optimizer.table=adam", "sharding=column_wise"]),
        pytest.param(2, ["sharding=data_parallel"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_resumed_run_repeats_the_losses_bit_for_bit(
    store: str, tmp_path: Path, world_size: int, choices: list[str]
):
    overrides = [f"data.store={store}", *MODEL, *RESUMABLE, *choices]
    overrides += ["optimizer.table_lr=0.01", "model.user_input=add", f"hardware.num_ranks={world_size}"]
    run_ranks(world_size, run_cut_and_resume, overrides, str(tmp_path / "run"), 5)
    first, resumed = assert_resumed(tmp_path / "run", 5, 12)
    assert resumed == first


def test_a_run_goes_on_at_another_number_of_ranks(store: str, tmp_path: Path):
    overrides = [f"data.store={store}", *MODEL, *RESUMABLE, *NO_DROPOUT, f"run_dir={tmp_path / 'run'}"]
    run_ranks(2, run_here, overrides)
    first = logged_steps(tmp_path / "run")
    drop_after(tmp_path / "run", 5)
    run_ranks(1, run_here, overrides)
    resumed = logged_steps(tmp_path / "run")
    assert resumed[:5] == first[:5]
    np.testing.assert_allclose([row["loss"] for row in resumed], [row["loss"] for row in first], rtol=1e-5)


def test_a_finished_run_is_shown_again_and_not_trained_or_changed(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    overrides = [f"data.store={store}", *MODEL, "hardware.num_ranks=1", "num_steps=2", f"run_dir={tmp_path / 'r'}"]
    run_here(overrides)
    before = (tmp_path / "r" / "summary.json").read_text()
    assert json.loads(before)["throughput"]["tokens"] > 0
    run_here(overrides)
    assert (tmp_path / "r" / "summary.json").read_text() == before
    assert "2 steps are trained" in capsys.readouterr().out


def test_a_folder_of_another_run_is_refused_by_the_differing_key(store: str, tmp_path: Path):
    common = [f"data.store={store}", *MODEL, "hardware.num_ranks=1", "num_steps=1", f"run_dir={tmp_path / 'r'}"]
    run_here(common)
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        run_here([*common, "optimizer.lr=0.5"])


def losses_and_ranks_by_rows(overrides: list[str]) -> tuple[list[float], list[float], int]:
    """As :func:`losses_and_ranks`, each id being a row of the lookup; and the fewest ids of a lookup."""
    sizes, to_keyed_jagged = [], recommender.to_keyed_jagged

    def keyed_by_rows(features: dict[str, Tensor], **_: bool) -> KeyedJaggedTensor:
        sizes.append(sum(map(len, features.values())))
        return to_keyed_jagged(features, one_id_per_row=True)

    recommender.to_keyed_jagged = keyed_by_rows  # type: ignore[assignment]
    return *losses_and_ranks(overrides), min(sizes)


@cache
def on_one_rank(overrides: tuple[str, ...]) -> tuple[list[float], list[float]]:
    """What every plan is compared with; the same for all of them."""
    return run_ranks(1, losses_and_ranks, list(overrides))[0]
