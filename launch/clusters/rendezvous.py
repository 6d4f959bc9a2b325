"""Before the ranks start: every node reports to node 0, or each says within the time what is wrong.

torchrun's own rendezvous waits for minutes, names nobody, and may take another host for its own. Node 0 listens on
the port that torchrun will use (:mod:`launch.clusters.rendezvous_host`); the nodes exchange lines of JSON with it:

    node 0: {"nonce": N}
    node k: {"report": {...}, "nonce": M, "proof": HMAC(secret, N, M, report)}
    node 0: {"waiting": true}, every few seconds, while the store is prepared or other nodes are awaited
    node 0: {"problem": "", "code": 0, "proof": HMAC(secret, N, M, problem, code)}

The secret of a job is ``SHARDREC_JOB_SECRET`` of the environment. Slurm's script draws one for each start.
"""

import hmac
import json
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from configs.endpoint import split_endpoint
from configs.errors import NODES_MISSING_EXIT_CODE, ConfigError, NodesMissingError
from launch.clusters.rendezvous_host import Host
from launch.clusters.report import MAX_LINE, SECRET, Report, job_secret, parse, proof, refuse_stop

RETRY_S = 0.5
CONNECT_S = 10.0
SILENCE_S = 60.0
"""A host that has sent nothing for so long is gone."""
HELLO_S = 5.0
"""What listens and says nothing for so long is not node 0's host: in an elastic job it is torchrun's own store."""

HEAD_START_S = 1.0
"""For node 0 of an elastic job, which holds torchrun's store; on one machine it then has the first ranks too."""


class _LostHost(Exception):
    """The connection to node 0 ended without an answer; it may come back."""


def meet(
    own: Report, endpoint: str, *, timeout_s: float, names: list[str], prepare: Callable[[], int] | None = None
) -> list[Report]:
    """Reports of all nodes, on node 0; the others get their own back when all have come.

    ``names``: of the nodes in order, to name one that does not come; may be empty. ``prepare``: run on node 0 while
    the others wait, however long it takes; :class:`PrepareFailed` where it does not return 0.
    Raises :class:`NodesMissingError` on every node that came where one did not within ``timeout_s``,
    :class:`ConfigError` for a node of another job, and :class:`MeetingStopped` after a stop signal.
    """
    if own.node != 0:
        _report(own, endpoint, timeout_s)
        return [own]
    with Host(own, endpoint, names) as host:
        if prepare is not None:
            host.prepare(prepare)
        return host.wait_for_all(timeout_s)


def wait_for_host(own: Report, endpoint: str, timeout_s: float) -> None:
    """Return when node 0 of an elastic job has made ready; what a node can ask at any time.

    Once its ranks run, torchrun's store listens there, which is silent.
    """
    _report(own, endpoint, timeout_s, is_elastic=True)


def _report(own: Report, endpoint: str, timeout_s: float, *, is_elastic: bool = False) -> None:
    """Report to node 0, and again where it was lost, until it answers."""
    host, port = split_endpoint(endpoint)
    who = f"node {own.node} ({own.name})"
    deadline = time.monotonic() + timeout_s
    while True:
        refuse_stop()
        try:
            with socket.create_connection((host, port), timeout=CONNECT_S) as connection:
                was_silent = _converse(_Lines(connection), own)
            if is_elastic and not was_silent:
                time.sleep(HEAD_START_S)
            if is_elastic or not was_silent:
                return
            reason = "what listens there is not node 0 of this job"
        except _LostHost as lost:
            deadline = max(deadline, time.monotonic() + RETRY_S)
            reason = str(lost)
        except OSError as error:  # an unknown name, a refusal or no answer: node 0 may be on its way
            reason = error.strerror or str(error)
        if time.monotonic() + RETRY_S > deadline:
            raise NodesMissingError(
                f"{who} cannot reach node 0 at {endpoint} for {timeout_s:g} s: {reason}; is that its name for all "
                f"nodes, is the port open, and was it started? (cluster.rendezvous_timeout_s={timeout_s:g})"
            )
        time.sleep(RETRY_S)


def _converse(lines: "_Lines", own: Report) -> bool:
    """True where the other side never spoke. Returns when all nodes have met; raises what node 0 says is wrong."""
    secret, own_nonce = job_secret(), secrets.token_hex(16)
    hello = lines.read(HELLO_S)
    if hello is None:
        return True
    host_nonce = hello.get("nonce")
    report = asdict(own)
    lines.send({"report": report, "nonce": own_nonce, "proof": proof(secret, host_nonce, own_nonce, report)})
    while True:
        answer = lines.read(SILENCE_S)
        if answer is None:
            raise _LostHost(f"node 0 was silent for {SILENCE_S:g} s")
        if answer.get("waiting"):
            continue
        problem, code = answer.get("problem"), answer.get("code")
        expected = proof(secret, host_nonce, own_nonce, problem, code)
        if not hmac.compare_digest(str(answer.get("proof")), expected):
            told = f"; it says: {problem}" if isinstance(problem, str) else ""
            raise ConfigError(f"node 0 does not know this node's {SECRET}; start all nodes of a job with one{told}")
        if code == NODES_MISSING_EXIT_CODE:
            raise NodesMissingError(str(problem))
        if problem:
            raise ConfigError(str(problem))
        return False


class _Lines:
    """Objects of JSON, a line each, over a socket; a stop signal ends the waiting for one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._buffer = connection, b""

    def send(self, message: dict[str, Any]) -> None:
        self._connection.settimeout(SILENCE_S)
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self, timeout_s: float) -> dict[str, Any] | None:
        """The next object, or None where none came in time. Raises :class:`_LostHost` where the other side ended."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            refuse_stop()
            self._connection.settimeout(min(RETRY_S, max(deadline - time.monotonic(), 0.01)))
            try:
                received = self._connection.recv(4096)
            except TimeoutError:
                if time.monotonic() > deadline:
                    return None
                continue
            except OSError as error:
                raise _LostHost(f"node 0 was lost: {error.strerror or error}") from error
            if not received:
                raise _LostHost("node 0 ended before all nodes had come; look at its log")
            self._buffer += received
            if len(self._buffer) > MAX_LINE:
                raise _LostHost("what listens there is not node 0 of this job")
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = parse(line)
        if message is None:
            raise _LostHost("what listens there is not node 0 of this job")
        return message
