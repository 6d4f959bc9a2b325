"""A run that was killed twice bills what it has spent, and says what was lost."""

import json
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
from kills import family_of, kill, seconds_until_gone, start_command, wait_until_it_trains

from configs.atomic_files import read_json
from processes import PATIENCE_S, wait_for
from train.run_dir.sessions_file import SESSIONS

WORDS = [
    *("model.embedding_dim=16", "model.num_blocks=1", "data.global_batch_size=32", "log_every_steps=1"),
    *("hardware.num_ranks=1", "hardware.num_threads=1", "evaluation.num_bootstrap_samples=10"),
    *("checkpoint.every_steps=60", "evaluation.every_steps=1000", "evaluation.patience=100000"),
]
HEARTBEAT_S = 1.0
"""More than one takes at the start of a session, which is what a kill may lose."""


def num_sessions(run_dir: Path) -> int:
    path = run_dir / SESSIONS
    return len(path.read_text().splitlines()) if path.exists() else 0


def has_begun(command: "subprocess.Popen[str]", run_dir: Path, number: int) -> bool:
    """Whether session ``number`` is on record, or nothing more will come."""
    return command.poll() is not None or num_sessions(run_dir) == number


@pytest.mark.slow
def test_what_two_kills_have_cost_is_billed(store: str, tmp_path: Path):
    """Seen from outside: no more than from the command to the end of its processes, no less than from its first
    record to the kill, without a heartbeat."""
    run_dir, least_s, most_s = tmp_path / "run", 0.0, 0.0
    words = ["train", f"data.store={store}", f"run_dir={run_dir}", *WORDS]
    for number in (1, 2):
        began_s = time.monotonic()
        command = start_command([*words, "num_steps=100000"])
        wait_for(partial(has_begun, command, run_dir, number), timeout_s=PATIENCE_S)
        recorded_s = time.monotonic()
        family = wait_until_it_trains(run_dir, command, 100 * number) | family_of(command.pid)
        least_s += time.monotonic() - recorded_s - HEARTBEAT_S
        kill(family)
        seconds_until_gone(family)
        command.communicate()
        most_s += time.monotonic() - began_s
    lines = [json.loads(line) for line in (run_dir / SESSIONS).read_text().splitlines()]
    killed_s = sum(line["wall_s"] for line in lines)
    assert least_s * 0.95 <= killed_s <= most_s
    last_step = max(json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines())
    began_s = time.monotonic()
    command = start_command([*words, f"num_steps={last_step + 1}"])
    command.communicate()
    cost = read_json(run_dir / "summary.json")["cost"]
    assert [session["ended"] for session in cost["sessions"]] == ["killed", "killed", "finished"]
    assert cost["sessions"][2]["wall_s"] <= time.monotonic() - began_s
    assert cost["device_hours"] * 3600 == pytest.approx(sum(session["wall_s"] for session in cost["sessions"]))
    assert cost["device_hours"] * 3600 > killed_s
    assert 0 < cost["lost_device_s"] <= killed_s
    assert sum(cost["phases_s"].values()) == pytest.approx(cost["device_hours"] * 3600)
