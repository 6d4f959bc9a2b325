"""``python -m benchmarks.sweep.server``: imports torch once, then makes a process for every run that it is asked for.

A run's process is forked, so that it starts at once and dies alone: what one run breaks, leaks or crashes, no other
run sees. Of a line of JSON on stdin it makes a run; when that has ended, it writes a line to stdout.

    {"name": "seed=1", "words": ["seed=1", ...], "log": "sweeps/a/logs/seed=1.log", "num_ranks": 1}
    {"name": "seed=1", "code": 0}

``{"stop": true}`` asks all runs to save and end; the end of stdin ends the server when no run is left.
"""

import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from configs.lifeline import end_with_starter, tied_environment
from configs.load import load_config
from configs.process_exit import exit_at_once
from train.run import main as train
from train.supervision.forked_ranks import run_on_forked_ranks
from train.supervision.process_exit import run_and_exit
from train.supervision.stop_signals import SIGNALS

READY = {"ready": True}


class Server:
    """Runs by the pipes whose other ends they hold: one that ends, however it does, closes its end."""

    def __init__(self, requests: int, answers: int, run: Callable[[dict[str, Any]], int]) -> None:
        """``requests`` and ``answers`` are file descriptors; ``run`` makes a run in a process of its own."""
        self._requests, self._answers, self._run = requests, answers, run
        self._selector = selectors.DefaultSelector()
        self._selector.register(requests, selectors.EVENT_READ)
        self._runs: dict[int, tuple[int, str]] = {}
        self._text = b""

    def serve(self) -> None:
        """Until stdin is closed and no run is left."""
        self._answer(READY)
        is_open = True
        while is_open or self._runs:
            for key, _ in self._selector.select():
                if key.fd != self._requests:
                    self._end_of_run(key.fd)
                elif not self._read_requests():
                    self._selector.unregister(self._requests)
                    is_open = False

    def _read_requests(self) -> bool:
        """Answer what has come; False at the end."""
        content = os.read(self._requests, 2**16)
        *lines, self._text = (self._text + content).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "stop" in request:
                for process, _ in self._runs.values():
                    os.kill(process, signal.SIGTERM)  # not reaped yet, so that no other process has its id
            else:
                self._start(request)
        return bool(content)

    def _start(self, request: dict[str, Any]) -> None:
        ours, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            for descriptor in (self._requests, self._answers, ours, *self._runs):
                os.close(descriptor)
            try:
                run_and_exit(lambda: self._run(request))
            finally:  # an error of ours; this process must not go on as a second server
                traceback.print_exc()
                os._exit(1)
        os.close(theirs)
        self._runs[ours] = (process, request["name"])
        self._selector.register(ours, selectors.EVENT_READ)

    def _end_of_run(self, pipe: int) -> None:
        self._selector.unregister(pipe)
        os.close(pipe)
        process, name = self._runs.pop(pipe)
        self._answer({"name": name, "code": os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])})

    def _answer(self, answer: dict[str, Any]) -> None:
        os.write(self._answers, f"{json.dumps(answer)}\n".encode())


def run_here(request: dict[str, Any]) -> int:
    """Train the run of ``request`` in this new process, with its output in its log; the exit code."""
    end_with_starter()
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if request["num_ranks"] == 1:
        return train(request["words"])
    return run_on_forked_ranks(request["num_ranks"], lambda: train(request["words"]))


def warm_up() -> None:
    """Do once what every run would do again: half of the time of a small one."""
    load_config()  # Hydra finds its plugins and reads our schemas
    with suppress(ImportError):
        import_module("pandas")  # where it is installed, pyarrow imports it when it first converts something


def main() -> None:
    """Serve stdin; never returns."""
    # The runs answer these by saving, as soon as they can; the server goes when nobody asks it any more.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.environ |= tied_environment({})  # a run ends with this process
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # what is printed shall not come between the answers
    warm_up()
    Server(requests, answers, run_here).serve()
    exit_at_once(0)


if __name__ == "__main__":
    main()
