"""Before the ranks start: every node reports to node 0, or each says within the time what is wrong.

torchrun's own rendezvous waits for minutes, names nobody, and may take another host for its own. Node 0 listens on
the port that torchrun will use; a node sends one line of JSON and waits for the answer, which all get at once.
"""

import json
import socket
import time
from dataclasses import asdict, dataclass

from configs.errors import ConfigError

RETRY_S = 0.5
ANSWER_S = 10
"""Beyond the timeout, for the way of node 0's answer."""


@dataclass(kw_only=True, slots=True)
class Report:
    """What a node says of itself."""

    node: int
    name: str
    num_nodes: int
    num_ranks: int
    run_id: str
    address: str = ""
    """As node 0 sees it."""

    def __str__(self) -> str:
        return f"node {self.node} {self.name} {self.address}: {self.num_ranks} rank{'s' * (self.num_ranks != 1)}"


def meet(own: Report, endpoint: str, *, timeout_s: int, names: list[str]) -> list[Report]:
    """Reports of all nodes, on node 0; the others get their own back when all have come.

    ``names``: of the nodes in order, to name one that does not come; may be empty.
    Raises :class:`ConfigError` on every node that came where one did not, or did with another job.
    """
    host, _, port = endpoint.rpartition(":")
    deadline = time.monotonic() + timeout_s
    if own.node == 0:
        return _host(own, host, int(port), deadline, timeout_s, names)
    _report(own, host, int(port), deadline, timeout_s)
    return [own]


def wait_for_host(endpoint: str, timeout_s: int) -> None:
    """Return when somebody listens at ``endpoint``; what a node of an elastic job can ask at any time."""
    host, _, port = endpoint.rpartition(":")
    _connected(host, int(port), time.monotonic() + timeout_s, timeout_s, "this node").close()


def _host(own: Report, host: str, port: int, deadline: float, timeout_s: int, names: list[str]) -> list[Report]:
    own.address = host
    found = {0: own}
    waiting: list[socket.socket] = []
    try:
        with _server(port) as server:
            while len(found) < own.num_nodes and (left := deadline - time.monotonic()) > 0:
                server.settimeout(left)
                try:
                    connection, address = server.accept()
                except TimeoutError:
                    break
                report = _read_report(connection, str(address[0]), own)
                if report is None:
                    connection.close()
                    continue
                waiting.append(connection)
                found[report.node] = report
            problem = _missing(found, own.num_nodes, names, f"{host}:{port}", timeout_s)
            for connection in waiting:
                connection.sendall(json.dumps({"problem": problem}).encode() + b"\n")
    finally:
        for connection in waiting:
            connection.close()
    if problem:
        raise ConfigError(problem)
    return [found[node] for node in sorted(found)]


def _server(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise ConfigError(f"node 0 cannot listen on port {port}: {error.strerror}; choose another port") from error


def _read_report(connection: socket.socket, address: str, own: Report) -> Report | None:
    """The report, or None after telling the caller why not: a stranger, or a node of another job."""
    connection.settimeout(ANSWER_S)
    try:
        report = Report(**json.loads(connection.makefile("r").readline()))
    except (OSError, ValueError, TypeError):
        return None
    report.address = address.removeprefix("::ffff:")
    if (report.run_id, report.num_nodes) != (own.run_id, own.num_nodes) or not 0 < report.node < own.num_nodes:
        problem = (
            f"node {report.node} ({report.name}) is of job {report.run_id} with {report.num_nodes} nodes, the one "
            f"that it reached of job {own.run_id} with {own.num_nodes}; is another job on the same port?"
        )
        connection.sendall(json.dumps({"problem": problem}).encode() + b"\n")
        return None
    return report


def _missing(found: dict[int, Report], num_nodes: int, names: list[str], endpoint: str, timeout_s: int) -> str:
    nodes = [node for node in range(num_nodes) if node not in found]
    if not nodes:
        return ""
    told = ", ".join(f"{node} ({names[node]})" if node < len(names) else str(node) for node in nodes)
    return (
        f"node {told} did not report to {endpoint} within {timeout_s} s; look at its log and whether it reaches "
        f"{endpoint}, or raise cluster.rendezvous_timeout_s={timeout_s}"
    )


def _report(own: Report, host: str, port: int, deadline: float, timeout_s: int) -> None:
    with _connected(host, port, deadline, timeout_s, f"node {own.node} ({own.name})") as connection:
        connection.settimeout(max(deadline - time.monotonic(), 0) + ANSWER_S)
        try:
            connection.sendall(json.dumps(asdict(own)).encode() + b"\n")
            answer = connection.makefile("r").readline()
        except OSError as error:
            raise ConfigError(f"node {own.node} ({own.name}) lost node 0 at {host}:{port}: {error}") from error
    if not answer:
        raise ConfigError(f"node 0 at {host}:{port} ended before all nodes had come; look at its log")
    if problem := json.loads(answer)["problem"]:
        raise ConfigError(problem)


def _connected(host: str, port: int, deadline: float, timeout_s: int, who: str) -> socket.socket:
    while True:
        try:
            return socket.create_connection((host, port), timeout=max(deadline - time.monotonic(), RETRY_S))
        except OSError as error:  # an unknown name, a refusal or no answer: node 0 may be on its way
            if time.monotonic() + RETRY_S > deadline:
                raise ConfigError(
                    f"{who} cannot reach node 0 at {host}:{port} for {timeout_s} s: {error.strerror or error}; "
                    f"is that its name for all nodes, is the port open, and was it started?"
                ) from error
        time.sleep(RETRY_S)
