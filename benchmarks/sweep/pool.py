"""The server of a sweep's runs as the sweep sees it: hand it runs, a few at once, and hear how each has ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.sweep.jobs import Job
from configs.errors import DataError
from configs.lifeline import tie_when_started, tied_environment

DIED = "the process that starts the runs has ended (exit code {}); the same command continues"


class Pool:
    """Starts :mod:`benchmarks.sweep.server`, which loads torch while this process goes on; a context.

    Leaving it ends the server, and with it every run that is still under way.
    """

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
        }  # of other threads than the main one, which is set by run
        self._process = subprocess.Popen(
            [sys.executable, "-m", "configs.start", "benchmarks.sweep.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=tied_environment(environment),
            preexec_fn=tie_when_started(),
        )
        self._stop_requested = False

    @property
    def stop_requested(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop_requested

    def run(self, jobs: Sequence[Job], logs: Path, workers: int) -> Iterator[tuple[Job, int]]:
        """Each of ``jobs`` when it has ended with its exit code, -n where signal n ended it; ``workers`` run at once.

        After :meth:`stop` no other one is started. Raises :class:`DataError` where the server has died.
        """
        waiting, under_way = list(reversed(jobs)), dict[str, Job]()
        self._next_answer()  # it is ready
        while True:
            while waiting and len(under_way) < workers and not self._stop_requested:
                job = waiting.pop()
                under_way[job.name] = job
                self._ask(_request_of(job, logs))
            if not under_way:
                return
            answer = self._next_answer()
            yield under_way.pop(answer["name"]), answer["code"]

    def stop(self) -> None:
        """Ask the runs to save and end; a second time end them at once. May be called by a signal's handler."""
        if self._stop_requested:
            self._process.kill()
        self._stop_requested = True
        with suppress(DataError):  # then the answer that is waited for does not come, which is raised there
            self._ask({"stop": True})

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None, "a pipe was asked for"
        try:
            os.write(self._process.stdin.fileno(), f"{json.dumps(request)}\n".encode())
        except BrokenPipeError as error:
            raise DataError(DIED.format(self._process.wait())) from error

    def _next_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "a pipe was asked for"
        line = self._process.stdout.readline()
        if not line:
            raise DataError(DIED.format(self._process.wait()))
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None, "a pipe was asked for"
            pipe.close()


def log_of(logs: Path, name: str) -> Path:
    """The file that holds what the run called ``name`` prints."""
    return logs / f"{name}.log"


def ending_of(code: int, log: Path, start: int) -> str:
    """Why a run that wrote to ``log`` from byte ``start`` on ended with ``code``: its last line, or the signal."""
    if code < 0:
        hint = "; was memory short?" if -code == signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{hint}"
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {code}"


def _request_of(job: Job, logs: Path) -> dict[str, Any]:
    return {
        "name": job.name,
        "words": job.words,
        "log": str(log_of(logs, job.name).absolute()),
        "num_ranks": job.config.hardware.num_ranks,
    }
