"""The ranks of one run on this machine, forked from a process that has loaded torch: they start at once.

For runs by the dozen (``benchmarks.sweep``); one run alone is started by ``elastic_agent``, which restarts it too.
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

from configs.errors import REQUEUE_EXIT_CODE
from configs.lifeline import end_with_starter
from train.distributed.environment import use_loopback
from train.distributed.meeting import LOOPBACK, listen_on_loopback, served_store
from train.supervision.elastic_agent import LAST_WORDS_S, SAVING_S
from train.supervision.process_exit import run_and_exit
from train.supervision.stop_signals import answered_signals, release_stop_signals

_POLL_S = 0.05


def run_on_forked_ranks(num_ranks: int, command: Callable[[], int]) -> int:
    """Run ``command`` on ``num_ranks`` forked processes of one group and return the exit code of the first that
    failed, 128 + n where signal n ended it; 75 where they were stopped and have saved.

    Stop signals are handed on. When a rank fails, the others have a few seconds for their last words. For a process
    that has no other threads that matter, no process group, and its stop signals blocked.
    """
    use_loopback()
    listener = listen_on_loopback()
    port = int(listener.getsockname()[1])
    os.environ |= {
        "MASTER_ADDR": LOOPBACK,
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "TORCHELASTIC_RUN_ID": "shardrec",
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the ranks connect to it, and none of them serves it
    }
    ranks = _Ranks({_fork(rank, listener, command): rank for rank in range(num_ranks)})
    store = served_store(listener, LOOPBACK, port)  # only now: its threads would not be there in a forked process
    code = ranks.wait()
    del store
    return code


def _fork(rank: int, listener: socket.socket, command: Callable[[], int]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process == 0:
        listener.close()
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        end_with_starter()
        run_and_exit(command)
    return process


class _Ranks:
    """The processes that run, by their ranks, and how those have ended that run no more."""

    def __init__(self, running: dict[int, int]) -> None:
        self._running = running
        self._failures: list[tuple[int, int]] = []
        self._deadline_s = float("inf")
        for number in answered_signals():
            signal.signal(number, self._hand_on)
        release_stop_signals()

    def wait(self) -> int:
        """The exit code of the job, when all have ended."""
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process in self._running:
                self._note(self._running.pop(process), os.waitstatus_to_exitcode(status))
            elif time.monotonic() > self._deadline_s:
                self._send(signal.SIGKILL)
                self._deadline_s = float("inf")
            else:
                time.sleep(_POLL_S)
        return self._code()

    def _note(self, rank: int, code: int) -> None:
        if code == 0:
            return
        if not self._failures:
            self._deadline_s = time.monotonic() + (SAVING_S if code == REQUEUE_EXIT_CODE else LAST_WORDS_S)
        self._failures.append((rank, code))

    def _code(self) -> int:
        """Of the rank that was killed, if one was, since the others then fail for it; else of the first."""
        if not self._failures:
            return 0
        rank, code = min(self._failures, key=lambda each: each[1] >= 0)
        if code >= 0:
            return code
        hint = "; was memory short?" if -code == signal.SIGKILL else ""
        print(f"rank {rank} was killed by {signal.Signals(-code).name}{hint}", file=sys.stderr, flush=True)
        return 128 - code

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for process in self._running:
            os.kill(process, number)  # not waited for yet, so that no other process has its id
