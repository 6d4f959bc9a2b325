"""A command's time reaches the processes that it starts, and not those that it only queued."""

import time

import pytest

from configs import command_time
from configs.command_time import began_or_now, forget_began, set_began


def test_processes_know_when_their_command_began(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(command_time._BEGAN_AT, raising=False)
    before = time.time()
    assert before <= began_or_now() <= time.time(), "nobody has said"
    set_began(before - 100)
    assert began_or_now() == pytest.approx(before - 100)
    forget_began()
    forget_began()
    assert began_or_now() >= before
