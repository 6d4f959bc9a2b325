"""Laws 1 and 2 for every encoder: the number of ranks, the loss, the plan and an interruption do not matter.

Every pair of an encoder, a loss and a plan is tried; the slow suite tries every pair in another combination.
"""

from pathlib import Path

import numpy as np
import pytest

from configs.schema.model import ENCODERS as CONFIGS
from ranks import run_ranks
from runs import assert_resumed, assert_same_ranks, losses_and_ranks, run_cut_and_resume, tiny_run

ENCODERS = [name for name in CONFIGS if name != "sasrec"]  # test_laws.py has its laws, one by one
LOSSES = ["full_softmax", "sampled_softmax", "bce", "gbce"]
PLANS = ["row_wise", "table_wise", "column_wise", "data_parallel"]
NUM_STEPS = 4
Case = tuple[str, str, str]
ALL = [(name, loss, plan) for name in ENCODERS for loss in LOSSES for plan in PLANS]
PAIRWISE, OTHERS = (
    [
        (name, loss, PLANS[(place + number + shift) % len(PLANS)])
        for number, name in enumerate(ENCODERS)
        for place, loss in enumerate(LOSSES)
    ]
    for shift in (0, 1)
)


def of_cases(store: str, cases: list[Case]) -> list[tuple[list[float], list[float]]]:
    """Losses and ranks of each case, in one process: its start is what takes the time."""
    return [losses_and_ranks(overrides_of(store, case), num_steps=NUM_STEPS) for case in cases]


def overrides_of(store: str, case: Case) -> list[str]:
    name, loss, plan = case
    found = [f"data.store={store}", f"model={name}", f"loss={loss}", f"sharding={plan}"]
    found += ["model.embedding_dim=16", "model.dropout=0", "data.max_history=12", "data.global_batch_size=32"]
    found += ["optimizer.table=adagrad", "optimizer.table_lr=0.05"]
    found += [] if CONFIGS[name]().knows_users_alone else ["model.user_input=add"]
    found += ["model.attention_dropout=0"] if name in ("esasrec", "bert4rec") else []
    return found + (["loss.num_negatives=16", "loss.in_batch_negatives=8"] if loss != "full_softmax" else [])


def assert_world_size_does_not_matter(store: str, cases: list[Case]) -> None:
    one, two = run_ranks(1, of_cases, store, cases)[0], run_ranks(2, of_cases, store, cases)
    assert two[0] == two[1]
    for case, here, there in zip(cases, one, two[0], strict=True):
        np.testing.assert_allclose(there[0], here[0], rtol=1e-5, err_msg=str(case))
        assert_same_ranks(there[1], here[1])


def test_every_pair_of_encoder_loss_and_plan_is_tried() -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert {(case[first], case[second]) for case in PAIRWISE} == {(case[first], case[second]) for case in ALL}


@pytest.mark.slow
def test_the_number_of_ranks_does_not_change_the_losses_of_any_encoder(store: str) -> None:
    assert_world_size_does_not_matter(store, PAIRWISE)


@pytest.mark.slow
def test_the_number_of_ranks_does_not_change_the_losses_in_other_combinations(store: str) -> None:
    assert_world_size_does_not_matter(store, OTHERS)


def cut_and_resumed(store: str, folder: str) -> None:
    for name in ENCODERS:
        choices = [
            f"model={name}",
            "model.user_input=first_token",
            "hardware.num_ranks=2",
            "evaluation.every_steps=6",
        ]
        keys = [each for each in tiny_run(store, Path(folder), 6) if each.split("=")[0] not in SET_HERE]
        run_cut_and_resume([*keys, *choices], f"{folder}/{name}", 4)


SET_HERE = ("model.num_blocks", "model.num_heads", "evaluation.every_steps", "run_dir", "hardware.num_ranks")


@pytest.mark.slow
def test_a_resumed_run_of_any_encoder_repeats_the_losses_bit_for_bit(store: str, tmp_path: Path) -> None:
    run_ranks(2, cut_and_resumed, store, str(tmp_path))
    for name in ENCODERS:
        first, resumed = assert_resumed(tmp_path / name, 4, 6)
        assert resumed == first, name
