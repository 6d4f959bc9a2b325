"""The process: a socket, the application behind it, and signals."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from configs.errors import ConfigError, DataError
from configs.schema.serve import NO_EVENTS, ServerConfig
from launch.serve.access import token_of
from launch.serve.app import application
from launch.serve.events import EventLog
from launch.serve.metrics import Metrics
from launch.serve.model import use_threads
from launch.serve.served import Served, tell
from launch.serve.service import Service

SWITCH_S = 0.0002
"""After this time a thread that waits for Python gets it, by default after 0.005 s: the model waits after each of its
operators while requests are read."""


class _Server(uvicorn.Server):
    """Leaves signals to :func:`_run`: uvicorn ends by the signal that stopped it, which is no exit code 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(config: ServerConfig) -> int:
    """Serve until SIGTERM or SIGINT, and return 0 when all requests under way are answered.

    Raises :class:`ConfigError` for a port that is taken, :class:`DataError` for an export that cannot be served.
    """
    token = token_of(config.serve)
    if not Path(config.export).is_dir():  # before anything is written beside it
        raise DataError(f"export={config.export} is no folder; write one with `shardrec export run_dir=RUN_DIR`")
    log = None if config.serve.events == NO_EVENTS else EventLog(_events_folder(config))
    try:
        with _listening(config) as listener:
            use_threads(config.serve.threads)
            sys.setswitchinterval(SWITCH_S)
            asyncio.run(_run(config, token, log, listener))
    finally:
        if log is not None:
            log.close()
    return 0


async def _run(config: ServerConfig, token: str, log: EventLog | None, listener: socket.socket) -> None:
    metrics = Metrics()
    served, service = Served(config, metrics), Service(config.serve, metrics, log)
    app = application(config.serve, token, served, service, metrics)
    server = _Server(
        uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=config.serve.stop_s,
        )
    )
    loop, background = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def reload() -> None:
        task = loop.create_task(served.load_or_tell())
        background.add(task)
        task.add_done_callback(background.discard)

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, reload)
    batches = [loop.create_task(each.run()) for each in (service.queries, service.posts)]
    answering = loop.create_task(server.serve(sockets=[listener]))
    loading = loop.create_task(_first_load(served, config, listener))
    await asyncio.wait([loading, answering], return_when=asyncio.FIRST_COMPLETED)
    if loading.done() and loading.exception():
        server.should_exit = True
    elif config.serve.watch_s:
        background.add(loop.create_task(served.watch(config.serve.watch_s)))
    await answering
    for each in (service.queries, service.posts):
        each.close()
    await asyncio.gather(*batches)
    for task in background:
        task.cancel()
    await loading


async def _first_load(served: Served, config: ServerConfig, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    tell(f"listening at http://{shown}:{port}, loading {config.export}")
    await served.load()
    assert served.state is not None, "it was loaded"
    model = served.state.model
    tell(f"ready: model {model.version}, {len(model.items):,} items; what it takes: http://{shown}:{port}/docs")


def _events_folder(config: ServerConfig) -> Path:
    """Beside the export, which is replaced as a whole, or is a link to another one tomorrow."""
    return Path(config.serve.events or f"{os.path.abspath(config.export)}.events")


@contextmanager
def _listening(config: ServerConfig) -> Iterator[socket.socket]:
    host, port = config.serve.host.strip("[]"), config.serve.port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"serve.host={host}, serve.port={port} cannot be listened on ({error}); set another serve.port"
        ) from error
    with listener:
        yield listener
