"""A run that fails, crashes or is stopped ends alone: the server says how, and the others go on."""

import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.sweep.server import READY, Server
from configs.errors import REQUEUE_EXIT_CODE
from train.supervision.stop_signals import SIGNALS


def answers_of(run: Callable[[dict[str, Any]], int], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a server to which all of ``requests`` come at once."""
    (read, write), (answers, answered) = os.pipe(), os.pipe()
    os.write(write, "".join(f"{json.dumps(each)}\n" for each in requests).encode())
    os.close(write)
    Server(read, answered, run).serve()
    os.close(answered)
    with os.fdopen(answers) as file:
        found = [json.loads(line) for line in file]
    assert found[0] == READY
    return found[1:]


def end_as_named(request: dict[str, Any]) -> int:
    if request["name"] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if request["name"] == "broken":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        raise RuntimeError("a mistake of ours")
    return int(request["name"])


def save_when_stopped(request: dict[str, Any]) -> int:
    return REQUEUE_EXIT_CODE if signal.sigwait([signal.SIGTERM]) else 1


@pytest.fixture
def _signals_wait() -> Any:
    """As in the server's own process, so that runs answer a signal only when they can."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_every_run_ends_alone() -> None:
    found = answers_of(end_as_named, [{"name": name} for name in ("0", "killed", "2", "broken")])
    assert {each["name"]: each["code"] for each in found} == {"0": 0, "killed": -9, "2": 2, "broken": 1}


@pytest.mark.usefixtures("_signals_wait")
def test_a_stop_reaches_every_run_under_way() -> None:
    found = answers_of(save_when_stopped, [{"name": "a"}, {"name": "b"}, {"stop": True}])
    assert sorted(each["name"] for each in found) == ["a", "b"]
    assert {each["code"] for each in found} == {REQUEUE_EXIT_CODE}


def test_requests_may_come_in_pieces() -> None:
    (read, write), (answers, answered) = os.pipe(), os.pipe()
    server = threading.Thread(target=Server(read, answered, end_as_named).serve)
    server.start()
    for piece in (b'{"na', b'me": "3"}\n{"name"', b': "4"}\n'):
        os.write(write, piece)
    os.close(write)
    server.join()
    os.close(answered)
    with os.fdopen(answers) as file:
        assert {json.loads(line).get("code") for line in file} == {None, 3, 4}
