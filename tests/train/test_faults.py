"""What goes wrong in training loses nothing: bad numbers, signals, kills, checkpoints damaged or unwritable."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from kills import environment, kill

from configs.errors import REQUEUE_EXIT_CODE, ConfigError, DataError
from configs.load import load_config
from data_pipeline.store.history_reader import Histories
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from processes import family_of
from ranks import run_ranks
from runs import run_here, run_stopped_at, run_stopped_while_it_ranks, without_measurements
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives
from train.evaluation import baselines
from train.objective import Objective
from train.run import build_state
from train.sharding import local_shards, table_weights
from train.state import TrainState
from train.step import train_step

REPOSITORY = Path(__file__).parents[2]
NUM_STEPS = 30
RUN = [
    "model.embedding_dim=16",
    "model.feed_forward_dim=16",
    "data.max_history=12",
    "data.global_batch_size=32",
    f"num_steps={NUM_STEPS}",
    "log_every_steps=1",
    "checkpoint.every_steps=5",
    "checkpoint.keep_last=9",
    "evaluation.every_steps=10",
    "sharding=row_wise",
]


@pytest.fixture(scope="module")
def whole(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two ranks that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_ranks(2, run_here, overrides_of(store, folder))
    return folder


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_on_one_rank_changes_nothing_on_any(store: str, tmp_path: Path, what: str):
    for before, after, is_finite, later in run_ranks(2, step_with_bad_number, overrides_of(store, tmp_path), what):
        assert not is_finite
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)
        assert any(not np.array_equal(after[name], later[name]) for name in after), "the next step learns again"


def test_a_bad_stretch_is_rolled_back_and_left_out(store: str, tmp_path: Path):
    overrides = [*overrides_of(store, tmp_path / "run"), "nonfinite.max_nonfinite_steps=3"]
    run_ranks(2, run_with_bad_steps, overrides, [12, 13, 14])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["bad_steps"], summary["rollbacks"], summary["steps"]) == (3, 1, NUM_STEPS)
    saved = json.loads((tmp_path / "run" / "checkpoints" / f"step-{NUM_STEPS:08d}" / "progress.json").read_text())
    assert saved["skipped_ranges"] == [[12, 15]]
    losses = losses_of(tmp_path / "run")
    assert np.isfinite([losses[step] for step in losses if step <= 12 or step > 15]).all()


def test_a_run_that_stays_bad_ends_with_a_message(store: str, tmp_path: Path):
    overrides = [
        *overrides_of(store, tmp_path / "run"),
        "nonfinite.max_nonfinite_steps=2",
        "nonfinite.max_rollbacks=1",
    ]
    with pytest.raises(RuntimeError, match=r"after 1 rollbacks \(nonfinite.max_rollbacks\); lower optimizer.lr"):
        run_ranks(2, run_with_bad_steps, overrides, list(range(12, NUM_STEPS)))


def test_one_signal_to_one_rank_stops_all_at_the_same_step_and_the_run_goes_on_bit_for_bit(
    store: str, whole: Path, tmp_path: Path
):
    codes = run_ranks(2, run_stopped_at, overrides_of(store, tmp_path / "run"), 7)
    assert codes == [REQUEUE_EXIT_CODE] * 2
    stopped = int((tmp_path / "run" / "STOPPED").read_text())
    assert 7 <= stopped <= 9
    assert run_ranks(2, run_here, overrides_of(store, tmp_path / "run")) == [0, 0]
    assert not (tmp_path / "run" / "STOPPED").exists()
    assert losses_of(tmp_path / "run") == losses_of(whole)


@pytest.mark.parametrize(("subset", "step"), [("valid", 10), pytest.param("test", NUM_STEPS, marks=pytest.mark.slow)])
def test_a_signal_while_targets_are_ranked_is_answered_between_two_batches_and_the_run_goes_on_bit_for_bit(
    store: str, whole: Path, tmp_path: Path, subset: str, step: int
):
    overrides = [*overrides_of(store, tmp_path / "run"), "evaluation.batch_size=4"]
    assert run_ranks(2, run_stopped_while_it_ranks, overrides, subset) == [REQUEUE_EXIT_CODE] * 2
    assert int((tmp_path / "run" / "STOPPED").read_text()) == step
    assert not (tmp_path / "run" / "summary.json").exists()
    assert run_ranks(2, run_here, overrides) == [0, 0]
    assert metrics_of(tmp_path / "run") == metrics_of(whole)
    ours, theirs = (
        json.loads((folder / "summary.json").read_text())["quality"] for folder in (tmp_path / "run", whole)
    )
    assert ours == theirs


def test_a_signal_while_rank_0_counts_baselines_is_answered_and_the_next_start_counts_them(
    store: str, whole: Path, tmp_path: Path
):
    assert run_ranks(2, run_stopped_while_it_counts, overrides_of(store, tmp_path / "run"))[0] == REQUEUE_EXIT_CODE
    assert int((tmp_path / "run" / "STOPPED").read_text()) == NUM_STEPS
    assert run_ranks(2, run_here, overrides_of(store, tmp_path / "run")) == [0, 0]
    assert metrics_of(tmp_path / "run") == metrics_of(whole)


@pytest.mark.parametrize(
    "damage", ["flipped", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut", "missing", "no index"))]
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    store: str, whole: Path, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
):
    run_ranks(2, run_stopped_at, overrides_of(store, tmp_path / "run"), 12)
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    spoil(newest, damage)
    run_ranks(2, run_here, overrides_of(store, tmp_path / "run"))
    told = capfd.readouterr().out
    assert f"warning: {newest} is passed over: damaged: " in told
    assert losses_of(tmp_path / "run") == losses_of(whole)


def test_nothing_is_trained_where_every_checkpoint_is_damaged(store: str, tmp_path: Path):
    overrides = [*overrides_of(store, tmp_path / "run"), "hardware.num_ranks=1", "num_steps=5"]
    run_here(overrides)
    for checkpoint in (tmp_path / "run" / "checkpoints").glob("step-*"):
        spoil(checkpoint, "cut")
    with pytest.raises(DataError, match="no checkpoint in"):
        run_here([*overrides[:-1], "num_steps=9"])


@pytest.mark.parametrize("asynchronous", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one_whole(store: str, tmp_path: Path, asynchronous: str):
    overrides = [*overrides_of(store, tmp_path / "run"), f"checkpoint.asynchronous={asynchronous}"]
    run_ranks(2, run_stopped_at, overrides, 6)
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    for message in run_ranks(2, run_on_a_full_disk, overrides):
        assert "could not be written" in message
        assert f"{before[-1]} is whole" in message
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")) == before
    assert run_ranks(2, run_here, overrides) == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("num_kills", [3, 25])
def test_kills_at_random_moments_change_nothing(store: str, whole: Path, tmp_path: Path, num_kills: int):
    draw = random.Random(num_kills)
    num_killed = num_finished = 0
    while num_killed < num_kills:
        run_dir = tmp_path / f"run-{num_finished}"
        started = start_training(overrides_of(store, run_dir))
        wait_for_a_moment(run_dir, draw, started)
        if started.poll() is None:
            kill(family_of(started.pid))
            started.wait()
            num_killed += 1
        else:
            assert_same_run(store, run_dir, whole)
            num_finished += 1
    run_dir = tmp_path / f"run-{num_finished}"
    assert start_training(overrides_of(store, run_dir)).wait() == 0
    assert_same_run(store, run_dir, whole)


def assert_same_run(store: str, run_dir: Path, whole: Path) -> None:
    assert losses_of(run_dir) == losses_of(whole)
    ours, theirs = (run_ranks(2, weights_of_run, overrides_of(store, folder)) for folder in (run_dir, whole))
    for rank in range(2):
        assert all(np.array_equal(ours[rank][name], theirs[rank][name]) for name in theirs[rank])


def overrides_of(store: str, run_dir: Path) -> list[str]:
    return [f"data.store={store}", f"run_dir={run_dir}", *RUN]


def losses_of(run_dir: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def metrics_of(run_dir: Path) -> list[dict[str, float]]:
    """What was written down of losses and validations, without the times."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [without_measurements(row) for row in rows]


def run_stopped_while_it_counts(overrides: list[str]) -> int:
    real = baselines.history_chunks

    def signalled(*args: Any) -> Iterator[Histories]:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    baselines.history_chunks = signalled  # type: ignore[assignment]
    return run_here(overrides)


def state_of(overrides: list[str]) -> TrainState:
    config = load_config(overrides)
    return build_state(
        config, load_manifest(config.data.store), NUM_STEPS, ProcessGroupCollectives(), torch.device("cpu")
    )


def weights_of(state: TrainState) -> dict[str, Any]:
    """This rank's weights, tables and dense part."""
    found = {name: weight.detach().clone().numpy() for name, weight in state.model.module.encoder.named_parameters()}
    for name, weight in table_weights(state.model).items():
        found |= {f"{name} {place}": part.detach().clone().numpy() for part, place in local_shards(weight)}
    return found


def weights_of_run(overrides: list[str]) -> dict[str, Any]:
    state, config = state_of(overrides), load_config(overrides)
    with DiskCheckpointer(config.run_dir, config.checkpoint) as checkpointer:
        checkpointer.restore_latest(state)
    return weights_of(state)


def step_with_bad_number(overrides: list[str], what: str) -> tuple[dict[str, Any], dict[str, Any], bool, Any]:
    """Two good steps, then one that is bad on rank 1 alone; the weights around it, and after one more good step."""
    state, config = state_of(overrides), load_config(overrides)
    stream = SequenceStream(config.data, seed=1, rank=dist.get_rank(), world_size=2)
    batches = stream.batches()
    for _ in range(2):
        train_step(state, next(batches))
        state.step += 1
    before = weights_of(state)
    break_step(state, 2, what)
    is_finite = train_step(state, next(batches)).is_finite
    state.step += 1
    after = weights_of(state)
    train_step(state, next(batches))
    batches.close()
    return before, after, is_finite, weights_of(state)


def break_step(state: TrainState, step: int, what: str) -> None:
    """Let the loss, or only the gradient that a finite loss has, be not a number on rank 1 at ``step``."""
    real: Any = state.objective

    def broken(model: Any, batch: Any, at: int) -> Any:
        loss, reported = real(model, batch, at)
        if at == step and dist.get_rank() == 1:
            if what == "loss":
                return loss * float("nan"), reported * float("nan")
            loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss, reported

    state.objective = broken  # type: ignore[assignment]


def run_with_bad_steps(overrides: list[str], steps: list[int]) -> int:
    real = Objective.__call__

    def broken(self: Objective, model: Any, batch: Any, step: int) -> Any:
        loss, reported = real(self, model, batch, step)
        bad = float("nan") if step in steps else 1.0
        return loss * bad, reported * bad

    Objective.__call__ = broken  # type: ignore[method-assign]
    return run_here(overrides)


def run_on_a_full_disk(overrides: list[str]) -> str:
    """Files of more than 8 KiB cannot be written: the small ones of the run folder can, a checkpoint cannot."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, unlimited[1]))
    try:
        run_here(overrides)
    except ConfigError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    return "nothing was raised"


def spoil(checkpoint: Path, damage: str) -> None:
    file = max(checkpoint.glob("rank-*.safetensors"), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[:-100])
        case "flipped":
            middle = len(content) // 2
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "missing":
            file.unlink()
        case _:
            (checkpoint / "index.json").unlink()


def start_training(overrides: list[str]) -> "subprocess.Popen[bytes]":
    """Two ranks under torchrun, in a process group of their own."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "train"]
    return subprocess.Popen(
        [*command, *overrides],
        env=environment() | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )


def wait_for_a_moment(run_dir: Path, draw: random.Random, started: "subprocess.Popen[bytes]") -> None:
    """Until the session has logged a step, or is about to, and then a random while: also into a checkpoint."""
    metrics = run_dir / "metrics.jsonl"
    size = metrics.stat().st_size if metrics.exists() else 0
    while started.poll() is None and not (metrics.exists() and metrics.stat().st_size != size):
        time.sleep(0.01)
    time.sleep(draw.random() * 0.4)
