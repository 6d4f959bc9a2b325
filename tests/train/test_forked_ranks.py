"""Ranks that are forked find each other, and end together with one exit code."""

import os
import signal
import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from configs.errors import REQUEUE_EXIT_CODE, USAGE_EXIT_CODE
from train.supervision import forked_ranks
from train.supervision.forked_ranks import run_on_forked_ranks
from train.supervision.stop_signals import SIGNALS


def code_of(command: Callable[[], int], meanwhile: Callable[[int], object] = lambda leader: None) -> int:
    """Of two ranks, forked by a process of its own, whose id ``meanwhile`` gets."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    leader = os.fork()
    if leader == 0:
        os._exit(run_on_forked_ranks(2, command))
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    meanwhile(leader)
    return os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1])


def rank() -> int:
    return int(os.environ["RANK"])


def add_ranks() -> int:
    dist.init_process_group("gloo")
    total = torch.tensor(rank() + 1)
    dist.all_reduce(total)
    return 0 if int(total) == 3 else 1


def wait_forever() -> int:
    while True:
        time.sleep(1)


def test_they_are_one_group() -> None:
    assert code_of(add_ranks) == 0


@pytest.mark.parametrize("code", [USAGE_EXIT_CODE, REQUEUE_EXIT_CODE])
def test_their_exit_code_is_that_of_the_run(code: int) -> None:
    assert code_of(lambda: code) == code


def test_a_rank_that_is_killed_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forked_ranks, "LAST_WORDS_S", 0.1)

    def killed() -> int:
        if rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return wait_forever()

    assert code_of(killed) == 128 + signal.SIGKILL


def test_a_stop_reaches_all_of_them() -> None:
    def saved_when_stopped() -> int:
        return REQUEUE_EXIT_CODE if signal.sigwait([signal.SIGTERM]) else 1

    assert code_of(saved_when_stopped, lambda leader: os.kill(leader, signal.SIGTERM)) == REQUEUE_EXIT_CODE
