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
from data_pipeline.manifest import load_manifest
from data_pipeline.stream import SequenceStream
from prepared_store import synthetic_store
from processes import family_of
from ranks import run_ranks
from train.checkpoint import DiskCheckpointer
from train.peers import DistributedPeers
from train.progress import Progress
from train.run import build_state
from train.step import train_step
from train.verdict import Judge
from train.whereabouts import Place, Report, report_here

REPOSITORY = Path(__file__).parents[2]
RUN = ["model.embedding_dim=16", "data.global_batch_size=32", "num_steps=100000"]
HANGING_RUN = """
import ctypes, os, signal, sys, time
import torch.distributed as dist
from train.ending import end_with
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
end_with(lambda: main(sys.argv[1:]))
"""
NEVER = "does not take part: at step 5 it has been in "
SILENT = "has not answered for "


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("sleep", NEVER),
        ("stop", SILENT),
        pytest.param("loop", NEVER, marks=pytest.mark.slow),
        pytest.param("call", SILENT, marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_ends_the_job_and_is_named(tmp_path: Path, where: str, told: str):
    (tmp_path / "hanging.py").write_text(HANGING_RUN)
    paths = [f"data.store={synthetic_store(tmp_path)}", f"run_dir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "train.agent", "--ranks=2", "hanging", *paths, *RUN, "hardware.timeout_s=6"]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}", "PYTHONSAFEPATH": "1", "HANGS_IN": where}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        ranks = set()
        while not (tmp_path / "run" / "metrics.jsonl").exists() and run.poll() is None:
            ranks = family_of(run.pid) - {run.pid}
        _, errors = run.communicate(timeout=120)
    assert run.returncode == HUNG_EXIT_CODE
    lines = [line for line in errors.splitlines() if "rank" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"rank 1 {told}")
    assert told == SILENT or f"{tmp_path.name}/hanging.py:{where} for" in lines[0]
    assert "; rank 0 waits for it in all_reduce (train/peers.py:sum)" in lines[0]
    assert "The run ends (hardware.timeout_s=6)" in lines[0]
    assert "Traceback" not in errors
    assert ranks
    assert not [process for process in ranks if Path(f"/proc/{process}").exists()]


@pytest.mark.parametrize("strategy", ["planner", "column_wise", "data_parallel"])
def test_ranks_begin_the_same_collectives_of_every_group(tmp_path: Path, strategy: str):
    """What the watchdog rests on: who has begun fewer is the one that the others wait for."""
    overrides = [f"data.store={synthetic_store(tmp_path)}", f"run_dir={tmp_path / 'run'}", *RUN]
    first, second = run_ranks(2, collectives_of_a_run, [*overrides, f"sharding.strategy={strategy}"])
    assert first == second
    assert sum(first.values()) > 20


def test_nobody_is_judged_while_one_rank_gets_on():
    judge = judge_after({0: report(collectives=7), 1: report(collectives=6)}, looks=9)
    for beat in range(20):
        look(judge, {0: report(collectives=7, told=20 + beat), 1: report(collectives=6, told=20 + beat, beats=beat)})
        assert judge.verdict() == ""


def test_ranks_that_all_compute_do_not_hang():
    assert judge_after({0: report(), 1: report()}, looks=100).verdict() == ""


def test_a_rank_in_a_collective_that_the_other_will_begin_waits_for_the_other():
    told = judge_after({0: report(collectives=7, place=WAITS), 1: report(collectives=6, place=HOOK)}).verdict()
    assert told.startswith("rank 1 does not take part: at step 3 it has been in models/attention.py:forward for")
    assert told.endswith("rank 0 waits for it in all_reduce (train/peers.py:sum)")


def test_different_collectives_of_the_same_number_are_told_of_all_ranks():
    other = Place("train/peers.py:gather", "all_gather")
    told = judge_after({0: report(place=WAITS), 1: report(place=other)}).verdict()
    assert "rank 0 in all_reduce (train/peers.py:sum), rank 1 in all_gather (train/peers.py:gather)" in told


def test_a_rank_that_has_ended_is_not_waited_for():
    ended = report(collectives=6)
    ended.has_ended = True
    assert judge_after({0: report(collectives=7), 1: ended}).verdict() == ""


def test_a_rank_that_never_reported_is_silent():
    assert judge_after({0: report()}).verdict().startswith("rank 1 has not answered for")


def test_the_time_in_which_the_judge_itself_was_stopped_does_not_count():
    judge = judge_after({0: report(collectives=7), 1: report(collectives=6)}, looks=3)
    look(judge, {0: report(collectives=7, told=4), 1: report(collectives=6, told=4)}, after_s=10_000)
    assert judge.verdict() == ""


PATIENCE_S = 10
WAITS = Place("train/peers.py:sum", "all_reduce")
HOOK = Place("models/attention.py:forward")


def report(collectives: int = 5, told: int = 0, beats: int = 0, place: Place = HOOK) -> Report:
    return Report(place, Place(), {"0": collectives}, told, beats, step=3)


def judge_after(reports: dict[int, Report], looks: int = 30) -> Judge:
    """A judge that has seen the same reports, told anew, once a second."""
    judge = Judge(2, PATIENCE_S, max_gap_s=3)
    for told in range(looks):
        look(judge, {rank: replace(each, num_told=told) for rank, each in reports.items()})
    return judge


def look(judge: Judge, reports: dict[int, Report], after_s: float = 1) -> None:
    judge.look(reports, (judge._looked_s or 1000) + after_s)


def collectives_of_a_run(overrides: list[str]) -> dict[str, int]:
    config = load_config(overrides)
    stream = SequenceStream(config.data, seed=1, rank=dist.get_rank(), world_size=2)
    state = build_state(config, load_manifest(config.data.store), 9, DistributedPeers(), torch.device("cpu"))
    batches = stream.batches()
    with DiskCheckpointer(config.run_dir, config.checkpoint) as checkpointer:
        for _ in range(3):
            train_step(state, next(batches))
            state.step += 1
        checkpointer.save(state, Progress())
        checkpointer.restore_latest(state)
    batches.close()
    return report_here(0, 0, 0).num_collectives
