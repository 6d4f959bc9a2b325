"""What `/metrics` tells, in Prometheus' format."""

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PREFIX = "shardrec_"


class Metrics:
    """Counts of one server; several in a process have their own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            f"{PREFIX}requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            f"{PREFIX}request_seconds",
            "From a request's head to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            f"{PREFIX}batch_size", "Requests computed at once.", buckets=SIZES, registry=registry
        )
        self.sources = Counter(f"{PREFIX}answers", "Recommendations by source.", ["source"], registry=registry)
        self.events = Counter(f"{PREFIX}events", "New events that were kept.", registry=registry)
        self.reloads = Counter(
            f"{PREFIX}reloads", "Exports that were loaded or refused.", ["result"], registry=registry
        )
        self.model = Gauge(f"{PREFIX}model_info", "1 for the model that answers.", ["version"], registry=registry)
        self._waiting = Gauge(f"{PREFIX}waiting_requests", "Requests that wait for the model.", registry=registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Ask ``length`` whenever somebody reads the metrics."""
        self._waiting.set_function(lambda: float(length()))

    def model_is(self, version: str) -> None:
        """The model that answers from now on."""
        self.model.clear()
        self.model.labels(version).set(1)

    def text(self) -> bytes:
        """What `/metrics` answers."""
        return generate_latest(self._registry)


class Measured:
    """Counts and times every request of an application; paths that it does not have are one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Iterable[str]) -> None:
        self._app, self._metrics, self._paths = app, metrics, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        status, start = 500, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)
