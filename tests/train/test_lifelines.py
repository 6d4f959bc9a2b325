"""Nothing of a job outlives its command, whatever is killed; what merely loses its terminal goes on."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kills import TARGETS, environment, is_alive, kill, start_command, targets_in, wait_until_it_trains

from configs.errors import REQUEUE_EXIT_CODE, USAGE_EXIT_CODE
from object_store import BUCKET
from processes import PATIENCE_S, family_of, wait_for

RUN = [
    *("model.embedding_dim=16", "model.num_blocks=1", "data.global_batch_size=32", "log_every_steps=1"),
    *("checkpoint.every_steps=5", "evaluation.every_steps=20", "evaluation.patience=100000"),
]
ENDLESS = ["num_steps=100000"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_ranks", "target"), [*((2, target) for target in TARGETS), (1, "launcher"), (1, "all ranks")]
)
def test_whatever_of_a_job_is_killed_nothing_of_it_is_left_and_the_next_start_goes_on(
    store: str, tmp_path: Path, num_ranks: int, target: str
):
    draw = random.Random(f"{num_ranks} {target}")
    with started(store, tmp_path / "run", num_ranks, *ENDLESS) as command:
        family = wait_until_it_trains(tmp_path / "run", command, num_lines=draw.randrange(1, 30))
        kill(targets_in(family, target, command.pid))
        with started(store, tmp_path / "run", num_ranks, "num_steps=300") as again:
            wait_for(lambda: not any(is_alive(process) for process in family))
            _, errors = again.communicate(timeout=PATIENCE_S)
    if again.returncode == USAGE_EXIT_CODE:  # it came before the last one was gone
        assert "is being written by process" in errors
        with started(store, tmp_path / "run", num_ranks, "num_steps=300") as later:
            later.communicate(timeout=PATIENCE_S)
            assert later.returncode == 0
    else:
        assert again.returncode == 0, errors
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "num_starts"), [("folder", 4), ("bucket", 10)])
def test_of_simultaneous_starts_of_one_run_one_trains_and_each_other_ends_in_one_line(
    store: str, tmp_path: Path, request: pytest.FixtureRequest, place: str, num_starts: int
):
    """Each works in another folder, as on another machine: they share the place of the run alone."""
    run_dir = f"{tmp_path}/run"
    if place == "bucket":
        request.getfixturevalue("proxy")
        run_dir = f"s3://{BUCKET}/run"
    words = [*overrides_of(store, tmp_path, 1), *ENDLESS, f"run_dir={run_dir}"]
    commands = [start_command([*words, f"scratch_dir={tmp_path}/{number}"]) for number in range(num_starts)]
    wait_for(lambda: sum(each.poll() is not None for each in commands) == num_starts - 1)
    (trains,) = [each for each in commands if each.poll() is None]
    trains.send_signal(signal.SIGTERM)
    ended = [(each.communicate(timeout=PATIENCE_S)[1], each.returncode) for each in commands]
    assert trains.returncode == REQUEUE_EXIT_CODE
    for errors in [errors for errors, code in ended if code != REQUEUE_EXIT_CODE]:
        told = [line for line in errors.splitlines() if not line.startswith("shardrec: ")]
        assert (len(told), "is being written by process" in told[0]) == (1, True), told
    assert sorted(code for _, code in ended) == [*[USAGE_EXIT_CODE] * (num_starts - 1), REQUEUE_EXIT_CODE]


@pytest.mark.slow
def test_a_run_on_one_machine_listens_on_loopback_alone(store: str, tmp_path: Path):
    with started(store, tmp_path / "run", 2, *ENDLESS) as command:
        family = wait_until_it_trains(tmp_path / "run", command)
        addresses = {address for process in family for address in listening_addresses(process)}
    assert addresses == {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("is_nohup", [True, False])
def test_a_terminal_that_goes_ends_a_run_that_then_has_saved_unless_it_was_started_by_nohup(
    store: str, tmp_path: Path, num_ranks: int, is_nohup: bool
):
    with started(store, tmp_path / "run", num_ranks, *ENDLESS, ignore_hangup=is_nohup) as command:
        wait_until_it_trains(tmp_path / "run", command)
        os.killpg(command.pid, signal.SIGHUP)
        if is_nohup:
            lines = num_lines(tmp_path / "run")
            wait_for(lambda: num_lines(tmp_path / "run") > lines + 5)
            command.send_signal(signal.SIGTERM)
        command.communicate(timeout=PATIENCE_S)
    assert command.returncode == REQUEUE_EXIT_CODE
    step = int((tmp_path / "run" / "STOPPED").read_text())
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}" / "progress.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [1, 2])
@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&- <&-", "| head -1"])
def test_a_run_that_nobody_listens_to_trains_to_its_end(store: str, tmp_path: Path, num_ranks: int, redirection: str):
    words = [sys.executable, "-m", "launch", *overrides_of(store, tmp_path / "run", num_ranks), "num_steps=10"]
    line = f"set -o pipefail; {' '.join(words)} {redirection}"
    done = subprocess.run(["bash", "-c", line], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "summary.json").is_file()


def start(
    store: str, run_dir: Path, num_ranks: int, *more: str, ignore_hangup: bool = False
) -> "subprocess.Popen[str]":
    return start_command([*overrides_of(store, run_dir, num_ranks), *more], ignore_hangup=ignore_hangup)


@contextmanager
def started(
    store: str, run_dir: Path, num_ranks: int, *more: str, ignore_hangup: bool = False
) -> Iterator["subprocess.Popen[str]"]:
    command = start(store, run_dir, num_ranks, *more, ignore_hangup=ignore_hangup)
    family = {command.pid}
    try:
        yield command
        family |= family_of(command.pid)
    finally:
        kill(family)
        command.communicate()


def overrides_of(store: str, run_dir: Path, num_ranks: int) -> list[str]:
    return ["train", f"data.store={store}", f"run_dir={run_dir}", f"hardware.num_ranks={num_ranks}", *RUN]


def num_lines(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def listening_addresses(process: int) -> set[str]:
    """Of the TCP sockets that ``process`` listens on."""
    sockets = {os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir() if path.is_symlink()}
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    own = [row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    return {".".join(str(byte) for byte in reversed(bytes.fromhex(each))) if len(each) == 8 else each for each in own}
