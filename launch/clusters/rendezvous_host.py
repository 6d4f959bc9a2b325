"""Node 0's side of the meeting: it listens from its start, and strangers neither block nor disturb it.

Connections are served by a thread, so that the store can be prepared meanwhile: the nodes that have come wait for as
long as node 0 lives, and fail only where another node stays away after that.
"""

import asyncio
import hmac
import json
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from types import TracebackType
from typing import Any

from configs.endpoint import join_endpoint, split_endpoint
from configs.errors import NODES_MISSING_EXIT_CODE, USAGE_EXIT_CODE, ConfigError, NodesMissingError
from launch.clusters.report import MAX_LINE, SECRET, PrepareFailed, Report, job_secret, parse, proof, refuse_stop

REPORT_S = 10
"""A caller that has not reported by then is a stranger."""
WAITING_S = 5.0
"""How often a node that waits hears that node 0 is there."""
TELL_S = 30
"""How often node 0 says for whom it waits."""
MAX_TEXT = 1024
MAX_NUMBER = 10**6


@dataclass(slots=True)
class _Guest:
    """A node that has reported, and how it learns of the outcome."""

    report: Report
    outcome: "asyncio.Future[tuple[str, int]]"
    is_told: threading.Event = field(default_factory=threading.Event)


class Host:
    """Listens on the port of ``endpoint`` while the block lasts; the nodes that wait are refused at its end."""

    def __init__(self, own: Report, endpoint: str, names: list[str]) -> None:
        self._own, self._endpoint, self._names = own, endpoint, names
        own.address, port = split_endpoint(endpoint)
        self._socket = _listening(own.address, port)
        self._secret = job_secret()
        self._guests: dict[int, _Guest] = {}
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="rendezvous", daemon=True)

    def __enter__(self) -> "Host":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell("node 0 has ended; look at its log", NODES_MISSING_EXIT_CODE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._socket.close()

    def prepare(self, prepare: Callable[[], int]) -> None:
        """Run ``prepare`` while the nodes come and wait; where it fails they end with its exit code too."""
        if code := prepare():
            self._tell("node 0 could not make the store or the run ready; its log says why", code)
            raise PrepareFailed(code)

    def wait_for_all(self, timeout_s: float) -> list[Report]:
        """The reports of all nodes, which are told to go on. Raises :class:`NodesMissingError`, on all that came."""
        start = told_at = time.monotonic()
        while missing := self._missing():
            refuse_stop()
            now = time.monotonic()
            if now - start >= timeout_s:
                problem = self._problem(missing, timeout_s)
                self._tell(problem, NODES_MISSING_EXIT_CODE)
                raise NodesMissingError(problem)
            if now - told_at >= TELL_S:
                told_at = now
                words = f"waiting for node {self._named(missing)}, {now - start:.0f} of {timeout_s:g} s"
                print(words, file=sys.stderr, flush=True)
            with self._changed:
                self._changed.wait(timeout=min(0.5, timeout_s))
        reports = [self._own, *(guest.report for _, guest in sorted(self._guests.items()))]
        self.release()
        return reports

    def release(self) -> None:
        """Tell the nodes that have come to go on."""
        self._tell("", 0)

    def _missing(self) -> list[int]:
        return [node for node in range(1, self._own.num_nodes) if node not in self._guests]

    def _named(self, nodes: list[int]) -> str:
        names = self._names
        return ", ".join(f"{node} ({names[node]})" if node < len(names) else str(node) for node in nodes)

    def _problem(self, missing: list[int], timeout_s: float) -> str:
        return (
            f"node {self._named(missing)} did not report to {self._endpoint} within {timeout_s:g} s; look at its log "
            f"and whether it reaches {self._endpoint}, or raise cluster.rendezvous_timeout_s={timeout_s:g}"
        )

    def _tell(self, problem: str, code: int) -> None:
        """Give the nodes that wait their answer, and wait until it is sent."""

        def settle() -> list[_Guest]:
            guests = [guest for guest in self._guests.values() if not guest.outcome.done()]
            for guest in guests:
                guest.outcome.set_result((problem, code))
            return guests

        found: Future[list[_Guest]] = Future()
        self._loop.call_soon_threadsafe(lambda: found.set_result(settle()))
        for guest in found.result():
            guest.is_told.wait(timeout=REPORT_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._answer, sock=self._socket, limit=MAX_LINE))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # a caller that is gone or no node: whoever is missing is named in the end
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        own_nonce = secrets.token_hex(16)
        _send(writer, {"nonce": own_nonce})
        message = parse(await asyncio.wait_for(reader.readline(), REPORT_S))
        report = _report_in(message or {}, str(writer.get_extra_info("peername")[0]))
        if message is None or report is None:
            return
        node_nonce = message.get("nonce")

        def answer(problem: str, code: int) -> None:
            shown = proof(self._secret, own_nonce, node_nonce, problem, code)
            _send(writer, {"problem": problem, "code": code, "proof": shown})

        expected = proof(self._secret, own_nonce, node_nonce, message["report"])
        is_known = hmac.compare_digest(str(message.get("proof")), expected)
        problem = self._objection(report) if is_known else f"its {SECRET} is another"
        if problem:
            answer(f"node {report.node} ({report.name}): {problem}", USAGE_EXIT_CODE)
            await writer.drain()
            return
        guest = self._welcome(report)
        try:
            answer(*await self._outcome(guest, reader, writer))
            await writer.drain()
        finally:
            guest.is_told.set()
            if not guest.outcome.done() and self._guests.get(report.node) is guest:
                del self._guests[report.node]

    def _objection(self, report: Report) -> str:
        own = self._own
        if (report.run_id, report.num_nodes) != (own.run_id, own.num_nodes):
            return (
                f"is of job {report.run_id} with {report.num_nodes} nodes, the one that it reached of job "
                f"{own.run_id} with {own.num_nodes}; is another job on the same port?"
            )
        if not 0 < report.node < own.num_nodes:
            return f"its number must lie in 1 to {own.num_nodes - 1}"
        if report.num_ranks != own.num_ranks:
            return f"has {report.num_ranks} ranks, node 0 {own.num_ranks}; start all nodes with the same keys"
        former = self._guests.get(report.node)
        if former is not None and former.report.name != report.name:
            return f"{former.report.name} {former.report.address} is that node already; give each node its own number"
        return ""

    def _welcome(self, report: Report) -> _Guest:
        """Take the node in; one of the same name and number that came before was started again since."""
        guest = _Guest(report, self._loop.create_future())
        former = self._guests.get(report.node)
        if former is not None and not former.outcome.done():
            former.outcome.set_result(("this node was started again", NODES_MISSING_EXIT_CODE))
        self._guests[report.node] = guest
        with self._changed:
            self._changed.notify_all()
        return guest

    async def _outcome(
        self, guest: _Guest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[str, int]:
        """What the node shall learn, once it is known. Raises ``OSError`` where the node has gone before."""
        gone: asyncio.Future[bytes] = asyncio.ensure_future(reader.read(1))
        try:
            while not guest.outcome.done():
                _send(writer, {"waiting": True})
                await writer.drain()
                both: list[asyncio.Future[Any]] = [guest.outcome, gone]
                await asyncio.wait(both, timeout=WAITING_S, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() and not guest.outcome.done():
                    raise ConnectionResetError
        finally:
            gone.cancel()
        return guest.outcome.result()


def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


def _report_in(message: dict[str, Any], address: str) -> Report | None:
    """The report, or None for what no node sends: another type, another key, a text without end."""
    told = message.get("report")
    types = {each.name: each.type for each in fields(Report)}
    if not isinstance(told, dict) or told.keys() != types.keys():
        return None
    for name, value in told.items():
        if types[name] is int and not (type(value) is int and 0 <= value <= MAX_NUMBER):
            return None
        if types[name] is str and not (isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()):
            return None
    return Report(**told | {"address": address.removeprefix("::ffff:")})


def _listening(host: str, port: int) -> socket.socket:
    """On the one address that ``host`` has here; on all where the nodes reach this machine by another's address."""
    try:
        if address := _own_address(host):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family)
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise ConfigError(
            f"node 0 cannot listen on port {port} ({join_endpoint(host, port)}): {error.strerror}; choose another "
            f"port"
        ) from error


def _own_address(host: str) -> str:
    """The address of this machine that ``host`` leads to from everywhere; empty where that is not known.

    Debian gives a machine's own name the address 127.0.1.1, by which no other reaches it.
    """
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return ""
    addresses = sorted(found, key=lambda address: ":" in address)
    is_loopback = {address: ip_address(address.partition("%")[0]).is_loopback for address in addresses}
    if host != "localhost" and host not in addresses:
        addresses = [address for address in addresses if not is_loopback[address]]
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.bind((address, 0))
        except OSError:
            continue
        return address
    return ""
