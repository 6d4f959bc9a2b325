"""The processes that a command has started, and a wait for what they do."""

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 900.0
"""How long a test waits for what must happen: only a hang reaches it, not a busy machine."""


def family_of(process: int) -> set[int]:
    """``process`` and all that descend from it; torchrun gives every rank a session of its own."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def wait_for(is_so: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> None:
    """Return when ``is_so()``; an assertion fails where it is not within the time."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {timeout_s} s"
        time.sleep(0.1)


def free_port() -> int:
    """None of those that the system gives to outgoing connections, one of which may take it before node 0 does."""
    while True:
        port = random.randrange(20_000, 32_000)
        try:
            socket.create_server(("localhost", port)).close()
        except OSError:
            continue
        return port
