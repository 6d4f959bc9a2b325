"""What the nodes of a job say to each other when they meet: a report, and the proof that it is of the same job."""

import hashlib
import hmac
import json
import os
import signal
from dataclasses import dataclass
from typing import Any

from launch.command import STOP_SIGNALS

SECRET = "SHARDREC_JOB_SECRET"
"""The environment variable that holds what the nodes of one job know, and nobody else."""
MAX_LINE = 16384
"""Bytes; no report is nearly as long."""


class MeetingStopped(Exception):
    """The process was told to end while it waited: nothing was begun."""


class PrepareFailed(Exception):
    """Node 0 could not make the store ready; ``args[0]`` is the exit code of what tried."""


@dataclass(kw_only=True, slots=True)
class Report:
    """What a node says of itself."""

    node: int
    name: str
    num_nodes: int
    num_ranks: int
    run_id: str
    cpus: str = ""
    """Those that the node's processes may run on, such as ``0-3``."""
    address: str = ""
    """As node 0 sees it."""

    def __str__(self) -> str:
        cpus = f", CPUs {self.cpus}" if self.cpus else ""
        ranks = f"{self.num_ranks} rank{'s' * (self.num_ranks != 1)}"
        return f"node {self.node} {self.name} {self.address}{cpus}: {ranks}"


def job_secret() -> bytes:
    """The secret of this job; empty where none was given."""
    return os.environ.get(SECRET, "").encode()


def proof(secret: bytes, *words: object) -> str:
    """That whoever sends ``words`` knows ``secret``."""
    return hmac.new(secret, json.dumps(words, sort_keys=True).encode(), hashlib.sha256).hexdigest()


def refuse_stop() -> None:
    """Raise :class:`MeetingStopped` where a stop signal waits (``launch.command.hold_stop_signals``)."""
    if signal.sigpending() & STOP_SIGNALS:
        raise MeetingStopped


def parse(line: bytes) -> dict[str, Any] | None:
    """The object of JSON that ``line`` is, or None."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
