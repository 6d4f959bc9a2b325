"""A real S3 server (moto, a process of its own), and a proxy before it that answers late, wrongly or not at all."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data_pipeline.store import object_client

BUCKET = "bucket"
Fault = Callable[[str, str], str]
"""(method, path) of a request -> what to do to its answer: one of FAULTS, or nothing."""
FAULTS = ("500", "503", "slow", "cut", "short", "flip", "expired")
_EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@contextmanager
def s3_server() -> Iterator[int]:
    """moto on a free port of loopback; yields the port."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == 200
        yield port
    finally:
        server.terminate()
        server.wait(30)


class FaultyProxy:
    """Passes requests on to ``port``, with ``fault`` done to the answers; ``done`` counts the faults by name."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.fault: Fault = lambda method, path: ""
        self.slow_s = 0.3
        self.num_puts = 0
        self.done: Counter[str] = Counter()
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def every(self, count: int, *names: str, only: str = "") -> None:
        """Do ``names`` in turn to every ``count``-th request whose path holds ``only``."""
        seen = 0

        def fault(method: str, path: str) -> str:
            nonlocal seen
            if only not in path:
                return ""
            seen += 1
            return names[seen // count % len(names)] if seen % count == 0 else ""

        self.fault, self.done = fault, Counter()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def _pass_on(self) -> None:
        proxy = self.proxy
        with proxy.lock:
            fault = proxy.fault(self.command, self.path)
            proxy.num_puts += self.command == "PUT"
            proxy.done.update([fault] if fault else [])
        body = self._body()
        if fault == "slow":
            time.sleep(proxy.slow_s)
        elif fault in ("500", "503"):
            return self._answer(int(fault), {}, b"")
        elif fault == "expired":
            return self._answer(400, {"Content-Type": "application/xml"}, _EXPIRED)
        connection = http.client.HTTPConnection("127.0.0.1", proxy.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = connection.getresponse()
        content = answer.read()
        self._answer(answer.status, dict(answer.getheaders()), content, fault)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _answer(self, status: int, headers: dict[str, str], content: bytes, fault: str = "") -> None:
        """``cut``: the connection ends in the middle; ``short``: a shorter range than asked for, said to be whole;
        ``flip``: the byte in the middle is another."""
        if self.command == "HEAD":
            fault = ""
        if fault == "flip":
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
        sent = content[: len(content) // 2] if fault in ("cut", "short") else content
        length = len(sent) if fault == "short" else len(content)
        if self.command == "HEAD":
            length = int(headers.get("Content-Length", headers.get("content-length", 0)))
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        if fault == "cut":
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *arguments: object) -> None:
        """Silent: the answers of the tests are asserted, not read."""


def connect(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Point the program at the S3 server on ``port``, with few and short waits."""
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(object_client, "RETRY_DELAYS_S", (0.01, 0.02, 0.04, 0.08))
    monkeypatch.setattr(object_client, "S3_WRITE_ATTEMPTS", 1)
    monkeypatch.setattr(object_client, "S3_REQUEST_TIMEOUT_S", 2.0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert server.poll() is None, "moto has ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"moto does not listen after 60 s, pid {os.getpid()}")


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """The port of a real S3 server, the same for the tests of a file."""
    with s3_server() as port:
        yield port


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Before that server; what reads an ``s3://`` URL goes through it."""
    made = FaultyProxy(server)
    connect(monkeypatch, made.port)
    yield made
    made.close()
