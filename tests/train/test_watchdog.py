"""A job that hangs ends within its time with one message, naming rank and collective; a slow one goes on."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from configs.errors import HUNG_EXIT_CODE
from configs.load import load_config
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from prepared_store import synthetic_store
from processes import PATIENCE_S, family_of
from ranks import run_ranks
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives
from train.progress import RunProgress
from train.run import build_state
from train.step import train_step
from train.supervision.hang_detector import HangDetector
from train.supervision.rank_status import CodeLocation, RankStatus, current_status

REPOSITORY = Path(__file__).parents[2]
RUN = ["model.embedding_dim=16", "data.global_batch_size=32", "num_steps=100000"]
HANGING_RUN = """
import contextlib, ctypes, os, signal, sys, time
import torch.distributed as dist
with contextlib.suppress(ImportError):
    import pandas  # pyarrow imports it when it first makes an array, which on a busy machine looks like a hang
from train.supervision.process_exit import run_and_exit
from train.objective import Objective
from train.run import main

real = Objective.__call__

def sleep(): time.sleep(10_000)
def loop():
    while True:
        sum(range(100))
def stop(): os.kill(os.getpid(), signal.SIGSTOP)
def call(): ctypes.PyDLL(None).sleep(10_000)

def hook(self, model, batch, step):
    if step == 5 and dist.get_rank() == 1:
        globals()[os.environ["HANGS_IN"]]()
    return real(self, model, batch, step)

Objective.__call__ = hook
run_and_exit(lambda: main(sys.argv[1:]))
"""
NEVER = "does not take part: at step 5 it has been in "
SILENT = "has not answered for "


@pytest.mark.parametrize(
    ("where", "told"),
    [
        pytest.param("sleep", NEVER, marks=pytest.mark.slow),
        pytest.param("stop", SILENT, marks=pytest.mark.slow),
        pytest.param("loop", NEVER, marks=pytest.mark.slow),
        pytest.param("call", SILENT, marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_ends_the_job_and_is_named(tmp_path: Path, where: str, told: str):
    (tmp_path / "hanging.py").write_text(HANGING_RUN)
    paths = [f"data.store={synthetic_store(tmp_path)}", f"run_dir={tmp_path / 'run'}"]
    command = [
        sys.executable,
        "-m",
        "train.supervision.elastic_agent",
        "--ranks=2",
        "hanging",
        *paths,
        *RUN,
        "hardware.timeout_s=6",
    ]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "PYTHONSAFEPATH": "1", "HANGS_IN": where}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        ranks = set()
        while not (tmp_path / "run" / "metrics.jsonl").exists() and run.poll() is None:
            ranks = family_of(run.pid) - {run.pid}
        _, errors = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == HUNG_EXIT_CODE
    lines = [line for line in errors.splitlines() if "rank" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"rank 1 {told}")
    assert told == SILENT or f"{tmp_path.name}/hanging.py:{where} for" in lines[0]
    assert "; rank 0 waits for it in an exchange of table rows (models/recommender.py:look_up)" in lines[0]
    assert "The run ends (hardware.timeout_s=6)" in lines[0]
    assert "Traceback" not in errors
    assert ranks
    assert not [process for process in ranks if Path(f"/proc/{process}").exists()]


@pytest.mark.parametrize("strategy", ["planner", "column_wise", "data_parallel"])
def test_ranks_begin_the_same_collectives_of_every_group(tmp_path: Path, strategy: str):
    """What the watchdog rests on: who has begun fewer is the one that the others wait for."""
    overrides = [f"data.store={synthetic_store(tmp_path)}", f"run_dir={tmp_path / 'run'}", *RUN]
    chosen = [f"sharding.strategy={strategy}", "optimizer.table=adagrad"]  # fits every plan
    first, second = run_ranks(2, collectives_of_a_run, [*overrides, *chosen])
    assert first == second
    assert sum(first.values()) > 20


def test_nobody_is_judged_while_one_rank_gets_on():
    detector = detector_after({0: status(collectives=7), 1: status(collectives=6)}, looks=9)
    for heartbeat in range(20):
        look(
            detector,
            {
                0: status(collectives=7, told=20 + heartbeat),
                1: status(collectives=6, told=20 + heartbeat, beats=heartbeat),
            },
        )
        assert detector.diagnose() == ""


def test_ranks_that_all_compute_do_not_hang():
    assert detector_after({0: status(), 1: status()}, looks=100).diagnose() == ""


def test_a_rank_in_a_collective_that_the_other_will_begin_waits_for_the_other():
    told = detector_after(
        {0: status(collectives=7, location=WAITS), 1: status(collectives=6, location=HOOK)}
    ).diagnose()
    assert told.startswith(
        "rank 1 does not take part: at step 3 it has been in models/attention/dispatch.py:forward for"
    )
    assert told.endswith("rank 0 waits for it in all_reduce (train/distributed/collectives.py:sum)")


def test_different_collectives_of_the_same_number_are_told_of_all_ranks():
    other = CodeLocation("train/distributed/collectives.py:gather", "all_gather")
    told = detector_after({0: status(location=WAITS), 1: status(location=other)}).diagnose()
    assert "rank 0 in all_reduce (train/distributed/collectives.py:sum)" in told
    assert "rank 1 in all_gather (train/distributed/collectives.py:gather)" in told


def test_a_rank_that_has_ended_is_not_waited_for():
    ended = status(collectives=6)
    ended.has_ended = True
    assert detector_after({0: status(collectives=7), 1: ended}).diagnose() == ""


def test_a_rank_that_never_reported_is_silent():
    assert detector_after({0: status()}).diagnose().startswith("rank 1 has not answered for")


def test_the_time_in_which_the_judge_itself_was_stopped_does_not_count():
    detector = detector_after({0: status(collectives=7), 1: status(collectives=6)}, looks=3)
    look(detector, {0: status(collectives=7, told=4), 1: status(collectives=6, told=4)}, after_s=10_000)
    assert detector.diagnose() == ""


HANG_S = 10
WAITS = CodeLocation("train/distributed/collectives.py:sum", "all_reduce")
HOOK = CodeLocation("models/attention/dispatch.py:forward")


def status(collectives: int = 5, told: int = 0, beats: int = 0, location: CodeLocation = HOOK) -> RankStatus:
    return RankStatus(location, CodeLocation(), {"0": collectives}, told, beats, step=3)


def detector_after(statuses: dict[int, RankStatus], looks: int = 30) -> HangDetector:
    """A judge that has seen the same reports, told anew, once a second."""
    detector = HangDetector(2, HANG_S, max_gap_s=3)
    for told in range(looks):
        look(detector, {rank: replace(each, num_sent=told) for rank, each in statuses.items()})
    return detector


def look(detector: HangDetector, statuses: dict[int, RankStatus], after_s: float = 1) -> None:
    detector.look(statuses, (detector._looked_s or 1000) + after_s)


def collectives_of_a_run(overrides: list[str]) -> dict[str, int]:
    config = load_config(overrides)
    stream = SequenceStream(config.data, seed=1, rank=dist.get_rank(), world_size=2)
    state = build_state(config, load_manifest(config.data.store), 9, ProcessGroupCollectives(), torch.device("cpu"))
    batches = stream.batches()
    with DiskCheckpointer(config.run_dir, config.checkpoint) as checkpointer:
        for _ in range(3):
            train_step(state, next(batches))
            state.step += 1
        checkpointer.save(state, RunProgress())
        checkpointer.restore_latest(state)
    batches.close()
    return current_status(0, 0, 0).num_collectives
