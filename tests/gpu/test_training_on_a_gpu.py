"""Training through the sharded tables on one GPU: the steps are the CPU's, and a resumed run goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from configs.load import load_config
from runs import assert_resumed, assert_same_ranks, losses_and_ranks, run_cut_and_resume
from stores import random_histories, write_store
from train.distributed.collectives import process_group

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

MODEL = ["model.embedding_dim=16", "model.feed_forward_dim=16", "data.max_history=12", "data.global_batch_size=32"]
NO_DROPOUT = ["model.dropout=0", "model.attention_dropout=0"]
RATES = {"rowwise_adagrad": "0.05", "adagrad": "0.05", "sgd": "2", "adam": "0.002"}
ON_GPU = ["hardware=h100", "hardware.num_ranks=1"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """200 users whose items follow each other by chance."""
    items, times = random_histories(200)
    return write_store(tmp_path_factory.mktemp("gpu") / "store", items, times)


@pytest.mark.parametrize("user_input", ["none", "first_token"])
@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax", "bce", "gbce"])
def test_losses_and_ranks_are_those_of_the_cpu(store: str, loss: str, user_input: str):
    words = [f"data.store={store}", *MODEL, *NO_DROPOUT, f"loss={loss}", f"model.user_input={user_input}"]
    if loss != "full_softmax":
        words += ["loss.num_negatives=16", "loss.in_batch_negatives=8"]
    _assert_same_on_both(words)


@pytest.mark.parametrize("optimizer", list(RATES))
def test_every_table_optimizer_is_that_of_the_cpu(store: str, optimizer: str):
    words = [f"data.store={store}", *MODEL, *NO_DROPOUT, f"optimizer.table={optimizer}"]
    _assert_same_on_both([*words, f"optimizer.table_lr={RATES[optimizer]}"])


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_a_resumed_run_repeats_the_losses(store: str, tmp_path: Path, asynchronous: str):
    words = [f"data.store={store}", *MODEL, *ON_GPU, "num_steps=12", "log_every_steps=1"]
    words += ["checkpoint.every_steps=5", "checkpoint.keep_last=9", "model.user_input=add"]
    words += [f"checkpoint.asynchronous={asynchronous}"]
    run_cut_and_resume(words, str(tmp_path / "run"), 5)
    first, resumed = assert_resumed(tmp_path / "run", 5, 12)
    np.testing.assert_allclose(resumed, first, rtol=1e-6)  # sums of a GPU have no fixed order


def _assert_same_on_both(words: list[str]) -> None:
    found = []
    for hardware in (["hardware=cpu", "hardware.num_ranks=1"], ON_GPU):
        overrides = [*words, *hardware]
        with process_group(load_config(overrides).hardware):
            found.append(losses_and_ranks(overrides))
    on_cpu, on_gpu = found
    np.testing.assert_allclose(on_gpu[0], on_cpu[0], rtol=1e-4)
    assert_same_ranks(on_gpu[1], on_cpu[1])
