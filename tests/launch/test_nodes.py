"""Several nodes as real processes: they train, one is lost and comes back, one does not come."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import NODES_MISSING_EXIT_CODE, REQUEUE_EXIT_CODE
from prepared_store import synthetic_store
from processes import PATIENCE_S, family_of, free_port, wait_for
from ranks import run_ranks
from runs import run_stopped_at

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def endpoint() -> str:
    return f"localhost:{free_port()}"


RUN = [
    "model.embedding_dim=16",
    "data.global_batch_size=32",
    "model.dropout=0",
    "model.attention_dropout=0",
    "evaluation.every_steps=1000",
    "checkpoint.every_steps=10",
    "log_every_steps=1",
]

SLOW_LEARNING = ["optimizer.lr=1e-4", "optimizer.table_lr=5e-3"]
"""A tenth of the defaults: a busy machine trains hundreds of steps until a node is back, and by then the rounding
errors of the sums over ranks must not have grown to 1e-5."""


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_an_elastic_job_goes_on_with_half_its_ranks_and_with_all_again(tmp_path: Path, endpoint: str, num_ranks: int):
    """All ranks, half when a node dies, all when one joins, then told to stop: the losses are those of one rank."""
    store = synthetic_store(tmp_path)
    words = [*RUN, *SLOW_LEARNING, f"data.store={store}", "num_steps=100000", "hardware.timeout_s=60"]
    nodes = ["cluster.nodes=2", "cluster.min_nodes=1", "cluster.max_restarts=3", f"cluster.endpoint={endpoint}"]
    run_dir, alone_dir = tmp_path / "run", tmp_path / "alone"
    job = ["launch", "cluster=torchrun", *nodes, *words, f"hardware.num_ranks={num_ranks}", f"run_dir={run_dir}"]
    logs = [tmp_path / f"{name}.log" for name in ("first", "second", "third")]
    with started([*job, "cluster.node=0"], logs[0]) as first:
        with started([*job, "cluster.node=1"], logs[1]) as second:
            until_trained(first, run_dir, 20)
            for process in family_of(second.pid):
                os.kill(process, signal.SIGKILL)
        until_trained(first, run_dir, max(losses(run_dir)) + 5)
        with started([*job, "cluster.node=1"], logs[2]) as third:
            wait_for(lambda: num_ranks_of(run_dir) == num_ranks or first.poll() is not None)
            until_trained(first, run_dir, max(losses(run_dir)) + 5)
            first.terminate()
            codes = [first.wait(timeout=PATIENCE_S), third.wait(timeout=PATIENCE_S)]
    told = logs[0].read_text()
    assert codes == [REQUEUE_EXIT_CODE] * 2, told
    lines = [line for log in logs for line in log.read_text().splitlines()]
    began = [line for line in lines if ": steps " in line]  # in the log of the node that has rank 0
    sizes = sorted(num for line in began for num in (num_ranks // 2, num_ranks) if f"on {num} ranks" in line)
    assert sizes == [num_ranks // 2, num_ranks, num_ranks]
    found = losses(run_dir)
    alone = [*words, "hardware.num_ranks=1", f"run_dir={alone_dir}"]
    assert run_ranks(1, run_stopped_at, alone, max(found)) == [REQUEUE_EXIT_CODE]
    expected = losses(alone_dir)
    assert sorted(found) == list(range(1, max(found) + 1))
    assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-5)


def until_trained(command: "subprocess.Popen[bytes]", run_dir: Path, step: int) -> None:
    wait_for(lambda: max(losses(run_dir), default=0) >= step or command.poll() is not None)


def started(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """What it tells goes to ``log``: a pipe that nobody reads is full after a thousand steps, and rank 0 hangs."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "launch", *words]
    with log.open("w") as out:
        return subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def num_ranks_of(run_dir: Path) -> int:
    """Ranks that trained the step that was told last."""
    return int(json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[-1])["num_ranks"])


def losses(run_dir: Path) -> dict[int, float]:
    """The loss of every step; of one that was trained again after a rank was lost, the last."""
    path = run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_two_nodes_of_which_one_does_not_come_end_with_its_number(tmp_path: Path, endpoint: str):
    store = synthetic_store(tmp_path)
    job = ["cluster=torchrun", "cluster.nodes=2", f"cluster.endpoint={endpoint}", "cluster.rendezvous_timeout_s=2"]
    words = ["launch", *job, f"data.store={store}", f"run_dir={tmp_path / 'run'}", "cluster.node=0"]
    with started(words, tmp_path / "log") as command:
        assert command.wait(timeout=PATIENCE_S) == NODES_MISSING_EXIT_CODE
    told = (tmp_path / "log").read_text()
    assert "node 1 did not report" in told
    assert "Traceback" not in told
