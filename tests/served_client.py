"""The server's application in this process, without a socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from configs.load import load_server
from launch.serve.app import application
from launch.serve.events import EventLog
from launch.serve.metrics import Metrics
from launch.serve.served import Served
from launch.serve.service import Service


class Exported(NamedTuple):
    """An export and the store of its run."""

    folder: Path
    store: str


Test = Callable[[httpx.AsyncClient], Awaitable[Any]]


def ask(export: Path, test: Test, *overrides: str, events: Path | None = None, token: str = "") -> Any:
    """What ``test`` returns, given a client of a server of ``export``."""

    async def run() -> Any:
        async with client_of(export, *overrides, events=events, token=token) as client:
            return await test(client)

    return asyncio.run(run())


@asynccontextmanager
async def client_of(
    export: Path, *overrides: str, events: Path | None = None, token: str = ""
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that has loaded ``export``; a failure in it is an answer of 500."""
    config = load_server([f"export={export}", *overrides])
    metrics, log = Metrics(), EventLog(events) if events is not None else None
    served, service = Served(config, metrics), Service(config.serve, metrics, log)
    await served.load()
    app = application(config.serve, token, served, service, metrics)
    batches = [asyncio.create_task(each.run()) for each in (service.queries, service.posts)]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    for each in (service.queries, service.posts):
        each.close()
    await asyncio.gather(*batches)
    if log is not None:
        log.close()


@contextmanager
def posting(exported: Exported, events: Path) -> Iterator[Callable[[str, str | bytes], httpx.Response]]:
    """What posts a body to a path of one server of ``exported`` and its store, from a test that is no coroutine."""
    with asyncio.Runner() as runner:
        server = client_of(exported.folder, f"serve.store={exported.store}", events=events)
        client = runner.run(server.__aenter__())
        try:
            yield lambda path, body: runner.run(client.post(path, content=body))
        finally:
            runner.run(server.__aexit__(None, None, None))
