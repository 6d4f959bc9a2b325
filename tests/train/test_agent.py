"""A command over several ranks ends as a shell expects: one exit code, one message, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from configs.errors import REQUEUE_EXIT_CODE, USAGE_EXIT_CODE
from prepared_store import synthetic_store
from processes import PATIENCE_S, family_of
from train.supervision.elastic_agent import LAST_WORDS_S, last_words_s

REPOSITORY = Path(__file__).parents[2]
RUN = ["model.embedding_dim=16", "data.global_batch_size=32", "num_steps=100000", "hardware.num_ranks=2"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return Path(synthetic_store(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_signal_to_the_command_saves_and_asks_to_be_started_again(
    store: Path, tmp_path: Path, number: signal.Signals
):
    with train(store, tmp_path / "run") as command:
        wait_until_it_trains(tmp_path / "run", command)
        command.send_signal(number)
        told, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == REQUEUE_EXIT_CODE
    step = int((tmp_path / "run" / "STOPPED").read_text())
    assert f"stopped at step {step}, saved" in told
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "progress.json").is_file()


@pytest.mark.slow
def test_a_killed_rank_ends_the_command_and_is_named(store: Path, tmp_path: Path):
    with train(store, tmp_path / "run") as command:
        wait_until_it_trains(tmp_path / "run", command)
        os.kill(process_of_rank(command.pid, 1), signal.SIGKILL)
        _, errors = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 128 + signal.SIGKILL
    assert "rank 1 was killed by SIGKILL" in errors
    assert errors.count("Traceback") == 0


@pytest.mark.slow
def test_a_rank_that_cannot_answer_ends_with_the_one_that_was_killed(store: Path, tmp_path: Path):
    with train(store, tmp_path / "run") as command:
        wait_until_it_trains(tmp_path / "run", command)
        stopped = process_of_rank(command.pid, 0)
        os.kill(stopped, signal.SIGSTOP)
        os.kill(process_of_rank(command.pid, 1), signal.SIGKILL)
        command.communicate(timeout=PATIENCE_S)
    assert not Path(f"/proc/{stopped}").exists()


@pytest.mark.parametrize(("codes", "is_long"), [([-9], False), ([1, -15], False), ([75], True), ([75, -9], False)])
def test_ranks_that_may_be_saving_get_longer_to_end(codes: list[int], is_long: bool):
    failures = {
        rank: ProcessFailure(local_rank=rank, pid=1, exitcode=code, error_file="") for rank, code in enumerate(codes)
    }
    assert (last_words_s(failures) > LAST_WORDS_S) == is_long


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all_with_its_line_alone(store: Path, tmp_path: Path):
    part = next((store / "histories").glob("part-*.parquet"))
    content = part.read_bytes()
    part.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with train(store, tmp_path / "run") as command:
        _, errors = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == USAGE_EXIT_CODE
    assert part.name in errors
    assert "Traceback" not in errors


def train(store: Path, run_dir: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "launch", "train", f"data.store={store}", f"run_dir={run_dir}", *RUN]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until_it_trains(run_dir: Path, command: "subprocess.Popen[str]") -> None:
    metrics = run_dir / "metrics.jsonl"
    while command.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)


def process_of_rank(command: int, rank: int) -> int:
    """The process of ``rank`` among those that ``command`` has started."""
    for process in family_of(command):
        if f"\0RANK={rank}\0" in Path(f"/proc/{process}/environ").read_text(errors="replace"):
            return process
    raise AssertionError(f"no process of rank {rank}")
