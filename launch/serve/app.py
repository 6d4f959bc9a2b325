"""The application: which path answers what."""

import sqlite3
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from configs.errors import DataError
from configs.schema.serve import ServeConfig
from launch.serve.access import Gate, read_body
from launch.serve.answers import errors_answer, json_answer
from launch.serve.batching import QueueFullError
from launch.serve.features import Features
from launch.serve.metrics import Measured, Metrics
from launch.serve.openapi import document, page
from launch.serve.requests import InvalidRequest, event_requests, recommend_request
from launch.serve.served import Served, tell
from launch.serve.service import Service

Endpoint = Callable[[Request], Awaitable[Response]]


def application(config: ServeConfig, token: str, served: Served, service: Service, metrics: Metrics) -> Starlette:
    """Answers with what ``served`` holds; the batches of ``service`` must be run beside it."""
    endpoints = _Endpoints(config, served, service, metrics)
    routes = [
        Route("/recommend", endpoints.recommend, methods=["POST"]),
        Route("/events", endpoints.events, methods=["POST"]),
        Route("/reload", endpoints.reload, methods=["POST"]),
        Route("/health", endpoints.health),
        Route("/ready", endpoints.ready),
        Route("/metrics", endpoints.metrics),
        Route("/openapi.json", endpoints.openapi),
        Route("/docs", endpoints.docs),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Measured, metrics=metrics, paths=[route.path for route in routes]),
            Middleware(Gate, token=token),
        ],
        exception_handlers={
            InvalidRequest: _invalid,
            QueueFullError: _queue_full,
            sqlite3.Error: _not_kept,
            HTTPException: _no_such,
            Exception: _failed,
        },
    )


class _Endpoints:
    def __init__(self, config: ServeConfig, served: Served, service: Service, metrics: Metrics) -> None:
        self._max_bytes = config.max_body_kib * 1024
        self._served, self._service, self._metrics = served, service, metrics

    async def recommend(self, request: Request) -> Response:
        asked = recommend_request(await read_body(request, self._max_bytes))
        if (state := self._served.state) is None:
            return _loading()
        return json_answer(await self._service.recommend(asked, state))

    async def events(self, request: Request) -> Response:
        asked = event_requests(await read_body(request, self._max_bytes))
        return json_answer(await self._service.keep(asked, self._served.state))

    async def reload(self, request: Request) -> Response:
        try:
            changed = await self._served.load()
        except DataError as error:
            tell(f"the newer export is refused: {error}")
            return errors_answer(
                409, [(None, f"refused, the older model keeps serving: {' '.join(str(error).split())}")]
            )
        assert self._served.state is not None, "it was loaded"
        return json_answer({"model_version": self._served.state.model.version, "changed": changed})

    async def health(self, request: Request) -> Response:
        return json_answer({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        if (state := self._served.state) is None:
            return _loading()
        return json_answer({"status": "ready", "model_version": state.model.version})

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        return json_answer(document(self._features))

    async def docs(self, request: Request) -> Response:
        return HTMLResponse(page(self._features))

    @property
    def _features(self) -> Features:
        return Features([]) if self._served.state is None else self._served.state.model.features


def _loading() -> Response:
    answer = errors_answer(503, [(None, "the model is being loaded")])
    answer.headers["Retry-After"] = "1"
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidRequest)
    answer = errors_answer(error.status, error.errors)
    if error.status == 413:  # the rest of the body is not read
        answer.headers["Connection"] = "close"
    return answer


async def _queue_full(request: Request, error: Exception) -> Response:
    answer = errors_answer(503, [(None, "too many requests wait (serve.max_queue)")])
    answer.headers["Retry-After"] = "1"
    return answer


async def _not_kept(request: Request, error: Exception) -> Response:
    tell(f"the database of events failed: {error}")
    return errors_answer(503, [(None, "the database of events failed; nothing was kept")])


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = errors_answer(error.status_code, [(None, error.detail)])
    answer.headers.update(error.headers or {})
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    return errors_answer(500, [(None, "the server failed; its log says why")])
