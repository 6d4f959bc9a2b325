"""A live line takes the place of the last on a terminal, its log has all of them, and a pipe has plain lines."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.live_line import LiveLine
from configs.terminal import Tee

REPOSITORY = Path(__file__).parents[2]
LINES = [f"step {step}/3  loss [1.0{step}]" for step in (1, 2, 3)]
SAID = "step 2/3  valid  HR@10 .5"


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def show_all(line: LiveLine) -> None:
    line.show(LINES[0], 1, 3)
    line.show(LINES[1], 2, 3)
    line.say(SAID)
    line.show(LINES[2], 3, 3)
    line.close()


def on_screen(written: str) -> list[str]:
    """Lines that a person sees in the end: the erasing sequences of one line are obeyed."""
    seen = [""]
    for part in written.replace("\x1b[?25l", "").replace("\x1b[?25h", "").split("\n"):
        kept = part.rsplit("\x1b[2K", 1)[-1] if "\x1b[2K" in part else part
        seen.append(kept.replace("\r", "").replace("\x1b[1A", ""))
    return [line for line in seen if line]


def test_a_pipe_has_every_line_plain() -> None:
    pipe = io.StringIO()
    show_all(LiveLine(pipe))
    assert pipe.getvalue().splitlines() == [*LINES[:2], SAID, LINES[2]]


def test_a_terminal_keeps_what_was_said_and_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    show_all(LiveLine(screen))
    assert "━" in screen.getvalue()
    assert on_screen(screen.getvalue())[-1] == LINES[2]
    assert SAID in on_screen(screen.getvalue())


def test_the_log_of_a_rank_on_a_terminal_has_every_line_and_no_bar() -> None:
    screen, log = Screen(), io.StringIO()
    show_all(LiveLine(Tee(screen, log)))
    assert log.getvalue().splitlines() == [*LINES[:2], SAID, LINES[2]]


@pytest.mark.parametrize(
    ("variables", "is_red"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)]
)
def test_an_error_is_red_on_a_terminal_alone(variables: dict[str, str], is_red: bool) -> None:
    command = [sys.executable, "-m", "launch", "nonsense"]
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | variables
    piped = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert piped.stderr.startswith("ConfigError: nonsense")
    terminal, shown = pty.openpty()
    subprocess.run(command, cwd=REPOSITORY, env=environment, stderr=shown, check=False)
    os.close(shown)
    with os.fdopen(terminal, "rb") as screen:
        told = screen.read1(4096).decode()
    assert ("31m" in told) == is_red
    assert re.sub(r"\x1b\[[0-9;]*m", "", told).startswith("ConfigError: nonsense")
