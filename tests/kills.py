"""Kill, restart, compare: what tests of interrupted runs share, and a program that does it many times.

``PYTHONPATH=.:tests python -m kills --kills=30 --target="one rank"`` interrupts one small run so often at random
moments, says how long its processes outlived each kill, and compares the weights with those of a run left alone.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from processes import PATIENCE_S, family_of, wait_for
from stores import random_histories, write_store

REPOSITORY = Path(__file__).parents[1]
TARGETS = ["launcher", "agent", "one rank", "all ranks"]
RUN = [
    *("model.embedding_dim=16", "model.num_blocks=1", "data.global_batch_size=32", "log_every_steps=1"),
    *("checkpoint.every_steps=20", "evaluation.every_steps=500", "evaluation.patience=100000", "num_steps=4000"),
]


def environment() -> dict[str, str]:
    """Of a command of this repository, wherever it runs."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}


def start_command(words: list[str], *, ignore_hangup: bool = False) -> "subprocess.Popen[str]":
    """``shardrec WORDS`` in its own session; a hangup ends it also where these tests were started by nohup."""
    command = [sys.executable, "-m", "launch", *words]
    return subprocess.Popen(
        ["nohup", *command] if ignore_hangup else command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_default_hangup,
    )


def _default_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def wait_until_it_trains(run_dir: Path, command: "subprocess.Popen[str]", num_lines: int = 1) -> set[int]:
    """The processes of the job when it has logged so many lines."""
    path = run_dir / "metrics.jsonl"
    wait_for(
        lambda: command.poll() is not None or (path.exists() and len(path.read_text().splitlines()) >= num_lines),
        timeout_s=PATIENCE_S,
    )
    assert command.poll() is None, command.communicate()
    return family_of(command.pid)


def targets_in(family: set[int], target: str, launcher: int) -> set[int]:
    """Those of a job's processes that ``target``, one of :data:`TARGETS`, means."""
    ranks = {process for process in family if "\0RANK=" in _environment_of(process)}
    ranks = ranks or family - {launcher}  # one rank alone has none of torchrun's variables
    match target:
        case "launcher":
            return {launcher}
        case "agent":
            return family - ranks - {launcher}
        case "one rank":
            return {max(ranks)} if ranks else set()
        case _:
            return ranks


def kill(processes: Iterable[int]) -> None:
    """By SIGKILL, those that are there."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def is_alive(process: int) -> bool:
    """Whether ``process`` runs; one that has ended and that nobody has waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def tensors_of(run_dir: Path) -> dict[str, bytes]:
    """The files of tensors of the newest checkpoint."""
    newest = max((run_dir / "checkpoints").glob("step-*"))
    return {path.name: path.read_bytes() for path in newest.iterdir() if path.suffix == ".safetensors"}


def seconds_until_gone(family: set[int]) -> float:
    """How long processes of a job that was killed are still there."""
    start = time.monotonic()
    wait_for(lambda: not any(map(is_alive, family)))
    return time.monotonic() - start


def kill_often(overrides: list[str], run_dir: Path, target: str, num_kills: int, draw: random.Random) -> list[float]:
    """Start and kill a run at random moments, from its first process to its steps; then let it end.

    Returns the seconds that each kill took to leave no process.
    """
    taken = []
    while len(taken) < num_kills:
        command = start_command(overrides)
        _wait_for_a_moment(run_dir, command, draw)
        family = family_of(command.pid)
        chosen = targets_in(family, target, command.pid) or family
        if command.poll() is None:
            kill(chosen)
            taken.append(seconds_until_gone(family))
        command.communicate()
        assert command.returncode != 0, "the run ended before it was killed often enough: raise num_steps"
    last = start_command(overrides)
    _, errors = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, errors
    return taken


def _wait_for_a_moment(run_dir: Path, command: "subprocess.Popen[str]", draw: random.Random) -> None:
    """One time in four while it starts, else when it has trained a while."""
    metrics = run_dir / "metrics.jsonl"
    size = metrics.stat().st_size if metrics.exists() else 0
    if draw.random() < 0.25:
        time.sleep(draw.random() * 8)
        return
    while command.poll() is None and not (metrics.exists() and metrics.stat().st_size > size):
        time.sleep(0.01)
    time.sleep(draw.random() * 1.5)


def _environment_of(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/environ").read_text(errors="replace")
    return ""


def main() -> None:
    """The program: one line a target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        store = write_store(folder / "store", *random_histories(200, seed=1, longest=12), num_items=50)
        words = ["train", f"data.store={store}", f"hardware.num_ranks={options.ranks}", *RUN]
        whole = start_command([*words, f"run_dir={folder / 'whole'}"])
        whole.communicate()
        assert whole.returncode == 0, "the run that nobody kills"
        for number, target in enumerate(options.target or TARGETS):
            run_dir = folder / f"run-{number}"
            draw = random.Random(target)
            taken = kill_often([*words, f"run_dir={run_dir}"], run_dir, target, options.kills, draw)
            median = sorted(taken)[len(taken) // 2]
            same = "equal bit for bit" if tensors_of(run_dir) == tensors_of(folder / "whole") else "DIFFER"
            print(
                f"{target}: {len(taken)} kills, none of the job left after {max(taken):.1f} s at most (median "
                f"{median:.1f} s); weights {same}",
                flush=True,
            )


if __name__ == "__main__":
    main()
