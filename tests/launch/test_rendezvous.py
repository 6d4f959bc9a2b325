"""The nodes of a job meet, or each says within the time what is wrong."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.endpoint import join_endpoint, split_endpoint
from configs.errors import ConfigError, NodesMissingError
from launch.clusters.rendezvous import meet
from launch.clusters.report import PrepareFailed, Report, proof
from processes import PATIENCE_S, free_port, wait_for

REPOSITORY = Path(__file__).parents[2]
NAMES = ["alpha", "beta", "gamma"]


def report(node: int, *, num_nodes: int = 3, run_id: str = "job") -> Report:
    return Report(node=node, name=NAMES[node], num_nodes=num_nodes, num_ranks=4, run_id=run_id)


def met(own: Report, endpoint: str, timeout_s: int = 20) -> list[Report] | str:
    """What a node learns: the reports, or the message of its error."""
    try:
        return meet(own, endpoint, timeout_s=timeout_s, names=NAMES)
    except ConfigError as error:
        return str(error)


@pytest.fixture
def endpoint() -> str:
    return f"localhost:{free_port()}"


def test_node_0_learns_of_all_whatever_the_order_in_which_they_start(endpoint: str):
    for order in ([0, 1, 2], [2, 1, 0]):
        with ThreadPoolExecutor(3) as pool:
            answers = {node: pool.submit(met, report(node), endpoint) for node in order}
        found = answers[0].result()
        assert isinstance(found, list)
        assert [each.name for each in found] == NAMES
        assert [answers[node].result() for node in (1, 2)] == [[report(1)], [report(2)]]


def test_a_node_that_does_not_come_is_named_to_all_that_did(endpoint: str):
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(met, report(node), endpoint, 2) for node in (0, 1)]
    for answer in answers:
        assert "node 2 (gamma) did not report" in str(answer.result())


def test_a_host_that_is_not_there_is_named(endpoint: str):
    assert f"node 1 (beta) cannot reach node 0 at {endpoint}" in str(met(report(1), endpoint, 1))


def test_a_host_whose_name_is_unknown_is_named():
    assert "cannot reach node 0 at no-such-host.invalid:29500" in str(met(report(1), "no-such-host.invalid:29500", 1))


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        assert f"cannot listen on port {port}" in str(met(report(0), f"localhost:{port}", 1))


def test_a_node_of_another_job_is_told_so_and_does_not_count(endpoint: str):
    with ThreadPoolExecutor(4) as pool:
        host = pool.submit(met, report(0, num_nodes=2), endpoint)
        stranger = pool.submit(met, report(1, num_nodes=2, run_id="another"), endpoint)
        assert "another job on the same port" in str(stranger.result())
        second = pool.submit(met, report(1, num_nodes=2), endpoint)
        found = host.result()
    assert isinstance(found, list)
    assert len(found) == 2
    assert isinstance(second.result(), list)


def test_what_is_no_report_does_not_disturb(endpoint: str):
    with ThreadPoolExecutor(2) as pool:
        host = pool.submit(met, report(0, num_nodes=2), endpoint)
        port = int(endpoint.rpartition(":")[2])
        wait_for(lambda: says(port, b"GET / HTTP/1.1\n"))
        assert isinstance(pool.submit(met, report(1, num_nodes=2), endpoint).result(), list)
        assert isinstance(host.result(), list)


NONSENSE = [
    b'{"report": [], "nonce": 1, "proof": 2}\n',
    b'{"report": {"node": "1"}}\n',
    b"[" * 5000 + b"\n",
    b"x" * 100_000,
    b"\xff\xfe\n",
    b"null\n",
    b"\n",
]


@pytest.mark.parametrize(
    "change",
    [
        {"node": "1"},
        {"node": True},
        {"node": 1.5},
        {"node": None},
        {"node": -1},
        {"num_ranks": 10**30},
        {"name": 7},
        {"name": "x" * 5000},
        {"name": "two\nlines"},
        {"run_id": ["job"]},
        {"more": 1},
    ],
)
def test_a_report_of_wrong_types_or_lengths_counts_for_nothing(change: dict[str, object], endpoint: str):
    """Nor does it end node 0: the true node 1 comes after it."""
    with ThreadPoolExecutor(2) as pool:
        host = pool.submit(met, report(0, num_nodes=2), endpoint)
        told = asdict(report(1, num_nodes=2)) | change
        wait_for(lambda: answers(endpoint, told) is None)
        assert isinstance(pool.submit(met, report(1, num_nodes=2), endpoint).result(), list)
        assert isinstance(host.result(), list)


def answers(endpoint: str, told: dict[str, object]) -> "dict[str, object] | bool | None":
    """What node 0 answers to a report with a right proof: None where it hangs up, False where it is not there yet."""
    try:
        with socket.create_connection(("localhost", int(endpoint.rpartition(":")[2])), timeout=5) as connection:
            lines = connection.makefile("r")
            nonce = json.loads(lines.readline())["nonce"]
            shown = proof(b"", nonce, "own", told)
            connection.sendall(json.dumps({"report": told, "nonce": "own", "proof": shown}).encode() + b"\n")
            line = lines.readline()
            return json.loads(line) if line else None
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        return None


def test_silent_and_babbling_strangers_hold_nobody_up(endpoint: str):
    """Each would have blocked the meeting for ten seconds when callers were heard one after another."""
    port = int(endpoint.rpartition(":")[2])
    with ThreadPoolExecutor(2) as pool, ExitStack() as strangers:
        host = pool.submit(met, report(0, num_nodes=2), endpoint, 15)
        for words in (b"", *NONSENSE, b"", b"GET / HTTP/1.1"):
            strangers.enter_context(connection := connected(port))
            with suppress(OSError):
                connection.sendall(words)
        assert isinstance(pool.submit(met, report(1, num_nodes=2), endpoint, 15).result(), list)
        assert isinstance(host.result(), list)


def connected(port: int) -> socket.socket:
    """A connection to node 0, as soon as it listens."""
    found: list[socket.socket] = []

    def try_to() -> bool:
        with suppress(OSError):
            found.append(socket.create_connection(("localhost", port), timeout=5))
        return bool(found)

    wait_for(try_to)
    return found[0]


def test_two_nodes_of_one_number_are_told_so(endpoint: str):
    with ThreadPoolExecutor(3) as pool:
        host = pool.submit(met, report(0, num_nodes=3), endpoint)  # it listens until the third node has come
        with seated(report(1, num_nodes=3), endpoint):
            impostor = Report(node=1, name="impostor", num_nodes=3, num_ranks=4, run_id="job")
            assert "beta 127.0.0.1 is that node already; give each node its own number" in said(impostor, endpoint)
            pool.submit(met, report(2, num_nodes=3), endpoint)
            host.result()
        assert isinstance(host.result(), list)


@contextmanager
def seated(own: Report, endpoint: str) -> Iterator[TextIO]:
    """A node that has reported and was taken in; what it is sent from then on, as lines."""
    with connected(int(endpoint.rpartition(":")[2])) as connection:
        lines = connection.makefile("r")
        nonce, told = json.loads(lines.readline())["nonce"], asdict(own)
        words = {"report": told, "nonce": "own", "proof": proof(b"", nonce, "own", told)}
        connection.sendall(json.dumps(words).encode() + b"\n")
        assert json.loads(lines.readline()) == {"waiting": True}
        yield lines


def said(own: Report, endpoint: str) -> str:
    """The error of a node that is refused."""
    return str(met(own, endpoint))


def test_a_node_that_was_started_again_takes_its_own_place(endpoint: str):
    """As a pod does whose machine was lost: its name and number are those of the one before."""
    with ThreadPoolExecutor(3) as pool:
        host = pool.submit(met, report(0), endpoint)
        with seated(report(1), endpoint) as lines:
            again = pool.submit(met, report(1), endpoint)
            told = (json.loads(line) for line in lines)
            assert next(each["problem"] for each in told if "problem" in each) == "this node was started again"
            others = [again, pool.submit(met, report(2), endpoint)]  # with it all have come
            assert [isinstance(each.result(), list) for each in [host, *others]] == [True] * 3


def test_a_node_with_another_secret_is_refused_and_does_not_count(endpoint: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHARDREC_JOB_SECRET", "ours")
    with ThreadPoolExecutor(2) as pool:
        host = pool.submit(met, report(0, num_nodes=2), endpoint)
        connected(int(endpoint.rpartition(":")[2])).close()
        monkeypatch.setenv("SHARDREC_JOB_SECRET", "theirs")
        assert "SHARDREC_JOB_SECRET" in said(report(1, num_nodes=2), endpoint)
        monkeypatch.setenv("SHARDREC_JOB_SECRET", "ours")
        assert isinstance(met(report(1, num_nodes=2), endpoint), list)
        assert isinstance(host.result(), list)


def test_nodes_of_different_sizes_are_told_so(endpoint: str):
    with ThreadPoolExecutor(1) as pool:
        host = pool.submit(met, report(0, num_nodes=2), endpoint)
        other = Report(node=1, name="beta", num_nodes=2, num_ranks=8, run_id="job")
        assert "has 8 ranks, node 0 4" in said(other, endpoint)
        met(report(1, num_nodes=2), endpoint)
        assert isinstance(host.result(), list)


def test_nodes_wait_for_as_long_as_node_0_prepares(endpoint: str):
    """Node 0 goes on only when the other one has been refused nothing for longer than its own timeout."""
    may_end = threading.Event()

    def prepare() -> int:
        assert may_end.wait(timeout=PATIENCE_S)
        return 0

    def host() -> list[Report]:
        return meet(report(0, num_nodes=2), endpoint, timeout_s=30, names=NAMES, prepare=prepare)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(host)
        second = pool.submit(met, report(1, num_nodes=2), endpoint, 1)
        with pytest.raises(TimeoutError):
            second.result(timeout=4)
        may_end.set()
        assert isinstance(second.result(), list)
        assert isinstance(first.result(), list)


def test_a_failed_preparation_ends_every_node_with_its_code(endpoint: str):
    is_seated = threading.Event()

    def host() -> list[Report]:
        def prepare() -> int:
            return 2 if is_seated.wait(timeout=PATIENCE_S) else 0

        return meet(report(0, num_nodes=2), endpoint, timeout_s=30, names=NAMES, prepare=prepare)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(host)
        with seated(report(1, num_nodes=2), endpoint) as lines:
            is_seated.set()
            (answer,) = [each for each in map(json.loads, lines) if "problem" in each]
        with pytest.raises(PrepareFailed) as failure:
            first.result()
    assert (answer["code"], failure.value.args) == (2, (2,))
    assert "could not make the store" in answer["problem"]


def test_a_node_waits_for_a_node_0_that_was_lost_and_comes_back(endpoint: str):
    port = int(endpoint.rpartition(":")[2])
    with ThreadPoolExecutor(2) as pool:
        with socket.create_server(("localhost", port)) as first:
            node = pool.submit(met, report(1, num_nodes=2), endpoint)
            first.accept()[0].close()
        host = pool.submit(met, report(0, num_nodes=2), endpoint)
        assert isinstance(node.result(), list)
        assert isinstance(host.result(), list)


def test_a_missing_node_is_no_wrong_key(endpoint: str):
    with pytest.raises(NodesMissingError):
        meet(report(0), endpoint, timeout_s=1, names=NAMES)
    with pytest.raises(NodesMissingError):
        meet(report(1), endpoint, timeout_s=1, names=NAMES)


def test_an_address_of_ipv6_is_met_at(monkeypatch: pytest.MonkeyPatch):
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    endpoint = f"[::1]:{free_port()}"
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(met, report(node, num_nodes=2), endpoint) for node in (0, 1)]
        assert all(isinstance(each.result(), list) for each in found)


@given(st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True), st.integers(1, 65535))
def test_an_endpoint_is_read_as_it_is_written(host: str, port: int):
    assert split_endpoint(join_endpoint(host, port)) == (host, port)
    assert split_endpoint(join_endpoint("fe80::1", port)) == ("fe80::1", port)


def says(port: int, words: bytes) -> bool:
    try:
        with socket.create_connection(("localhost", port), timeout=1) as stranger:
            stranger.sendall(words)
    except OSError:
        return False
    return True
