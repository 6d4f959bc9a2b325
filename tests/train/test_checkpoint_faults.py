"""A checkpoint that one rank cannot write or read is refused by all; a full disk and a bad number lose nothing."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from configs.errors import USAGE_EXIT_CODE, ConfigError, DataError
from configs.load import load_config
from data_pipeline.store.manifest import load_manifest
from processes import PATIENCE_S
from ranks import run_ranks
from runs import run_here
from train.checkpoint import checksummed_files
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives
from train.progress import RunProgress
from train.run import build_state
from train.sharding import local_shards, table_weights

REPOSITORY = Path(__file__).parents[2]
RUN = [
    "model.embedding_dim=16",
    "data.global_batch_size=32",
    "log_every_steps=1",
    "checkpoint.every_steps=5",
    "checkpoint.keep_last=999",
    "evaluation.every_steps=100000",
    "sharding=row_wise",
]


@pytest.fixture(scope="module")
def trained(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on two ranks that has saved steps 5 and 10."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run_ranks(2, run_here, [f"data.store={store}", f"run_dir={folder}", *RUN, "num_steps=10"]) == [0, 0]
    return folder


@pytest.fixture
def saved(store: str, trained: Path, tmp_path: Path) -> list[str]:
    """The overrides of a copy of that run."""
    shutil.copytree(trained, tmp_path / "run")
    return [f"data.store={store}", f"run_dir={tmp_path / 'run'}", *RUN]


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_what_one_rank_cannot_write_is_raised_on_all(saved: list[str], tmp_path: Path, asynchronous: str):
    overrides = [*saved, "num_steps=20", f"checkpoint.asynchronous={asynchronous}"]
    for message in run_ranks(2, run_with_small_files_on_rank_one, overrides):
        assert "step-00000015 could not be written: " in message
        assert "File too large" in message
        assert "step-00000010 is whole" in message
    assert run_ranks(2, run_here, [*saved, "num_steps=20"]) == [0, 0]


def test_a_file_that_one_rank_cannot_read_is_passed_over_by_all(
    saved: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert run_ranks(2, step_restored_where_rank_one_cannot_read, saved, "step-00000010") == [5, 5]
    told = capfd.readouterr().out
    assert "step-00000010 is passed over: damaged: " in told
    assert "cannot be read: Input/output error" in told


@pytest.mark.parametrize(("where", "number"), [("table", "nan"), ("dense", "inf"), ("optimizer", "nan")])
def test_numbers_that_are_not_finite_on_one_rank_are_passed_over_by_all(
    saved: list[str], where: str, number: str, capfd: pytest.CaptureFixture[str]
):
    assert run_ranks(2, step_restored_after_saving, saved, where, float(number)) == [10, 10]
    told = capfd.readouterr().out
    assert "step-00000011 is passed over: it holds numbers that are not finite: " in told
    assert ("optimizer." if where == "optimizer" else "model.") in told.partition("not finite: ")[2]


def test_a_best_model_that_is_not_finite_is_not_ranked(saved: list[str]):
    for message in run_ranks(2, message_of_bad_best, saved):
        assert "best: it holds numbers that are not finite: model." in message


@pytest.mark.slow
def test_a_run_that_fills_its_disk_keeps_its_checkpoints_and_goes_on_when_there_is_room(store: str, disk: Path):
    run_dir = disk / "run"
    done = train(store, run_dir, "num_steps=100000")
    assert done.returncode == USAGE_EXIT_CODE
    assert "No space left on device" in done.stderr
    assert "start the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    whole = sorted(path.parent.name for path in run_dir.glob("checkpoints/step-*/progress.json"))
    assert whole
    subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
    step = int(whole[-1].removeprefix("step-"))
    done = train(store, run_dir, f"num_steps={step + 7}")
    assert done.returncode == 0
    assert f"{run_dir}: steps {step} to {step + 7} of" in done.stdout
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == step + 7


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def train(store: str, run_dir: Path, *overrides: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "launch", "train", f"data.store={store}", f"run_dir={run_dir}"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [*command, *RUN, "hardware.num_ranks=2", *overrides],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def run_with_small_files_on_rank_one(overrides: list[str]) -> str:
    """Rank 1 cannot write files of more than 4 KiB, which a checkpoint of its shard is."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    if dist.get_rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, unlimited[1]))
    try:
        run_here(overrides)
    except ConfigError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    return "nothing was raised"


def parts_of(overrides: list[str]) -> tuple[Any, DiskCheckpointer]:
    config = load_config(overrides)
    state = build_state(config, load_manifest(config.data.store), 10, ProcessGroupCollectives(), torch.device("cpu"))
    return state, DiskCheckpointer(config.run_dir, config.checkpoint)


def step_restored_where_rank_one_cannot_read(overrides: list[str], name: str) -> int:
    real = checksummed_files._sum_of

    def broken(path: Path, heartbeat: Any) -> int:
        if dist.get_rank() == 1 and path.parent.name == name:
            raise OSError(5, "Input/output error")
        return real(path, heartbeat)

    checksummed_files._sum_of = broken
    state, checkpointer = parts_of(overrides)
    with checkpointer:
        checkpointer.restore_latest(state)
    return int(state.step)


def step_restored_after_saving(overrides: list[str], where: str, number: float) -> int:
    """The step that is restored where step 11 was saved with one bad number; the table's lies on rank 1 alone."""
    state, checkpointer = parts_of(overrides)
    with checkpointer:
        checkpointer.restore_latest(state)
        state.step = 11
        spoil(state, where, number)
        checkpointer.save(state, RunProgress())
        checkpointer.restore_latest(state)
    return int(state.step)


def message_of_bad_best(overrides: list[str]) -> str:
    state, checkpointer = parts_of(overrides)
    with checkpointer:
        checkpointer.restore_latest(state)
        spoil(state, "table", float("nan"))
        checkpointer.save_best(state, RunProgress())
        try:
            checkpointer.restore_best(state)
        except DataError as error:
            return str(error)
    return "nothing was raised"


def spoil(state: Any, where: str, number: float) -> None:
    with torch.no_grad():
        if where == "table" and dist.get_rank() == 1:
            next(part for part, _ in local_shards(table_weights(state.model)["item"]))[0, 0] = number
        if where == "dense":
            next(state.model.module.encoder.parameters()).view(-1)[0] = number
        if where == "optimizer":
            moments = [
                values["exp_avg"] for values in state.optimizer.state_dict()["state"].values() if "exp_avg" in values
            ]
            moments[0].view(-1)[0] = number
