"""What the server takes and answers, for programs (OpenAPI) and for people; needs no network to be read."""

import copy
import html
import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from launch.serve.answers import ErrorsAnswer, EventsAnswer, RecommendAnswer, ReloadAnswer, StateAnswer
from launch.serve.features import Feature
from launch.serve.requests import EventRequest, HistoryEvent, RecommendRequest

_PATHS: tuple[tuple[str, str, str, type[BaseModel] | None, type[BaseModel] | None], ...] = (
    ("/recommend", "post", "The best items for a user or after a history.", RecommendRequest, RecommendAnswer),
    ("/events", "post", "Keep an event, or a list of events, of users.", EventRequest, EventsAnswer),
    ("/reload", "post", "Load the export again; a broken one is refused.", None, ReloadAnswer),
    ("/health", "get", "Whether the process lives.", None, StateAnswer),
    ("/ready", "get", "Whether the model is loaded.", None, StateAnswer),
    ("/metrics", "get", "Counts and times in Prometheus' format.", None, None),
)
_TYPES = {True: ["string", "number", "boolean", "null"], False: ["number", "boolean", "null"]}
"""What JSON has for a category and for a number."""
_ERRORS = {
    "400": "No JSON.",
    "401": "No token, or another.",
    "403": "A web page of another origin asks.",
    "409": "A newer export is broken.",
    "413": "The body is too large.",
    "422": "A field is wrong.",
    "503": "The model is being loaded, or too many requests wait.",
}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Recommendations</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
pre{{background:#f4f4f4;padding:1rem;overflow:auto}}</style></head><body><h1>Recommendations</h1>
<p>Shardrec {version}. For programs: <a href="openapi.json">openapi.json</a>.</p>{paths}</body></html>
"""


def document(features: Iterable[Feature] = ()) -> dict[str, Any]:
    """The OpenAPI document, with the ``features`` that the model reads of each event."""
    found = copy.deepcopy(_document())
    named = {each.name: {"type": _TYPES[each.is_category], "description": _told_of(each)} for each in features}
    for model in (HistoryEvent, EventRequest):
        found["components"]["schemas"][model.__name__]["properties"]["features"]["properties"] = named
    return found


def _told_of(feature: Feature) -> str:
    kind = "A category" if feature.is_category else "A number"
    return f"{kind}; {'it may be missing' if feature.is_optional else 'every event has it'}."


@cache
def _document() -> dict[str, Any]:
    models = {model for _, _, _, *both in _PATHS for model in both if model is not None} | {ErrorsAnswer}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Recommendations", "version": version("shardrec")},
        "paths": {path: {method: _operation(told, body, answer)} for path, method, told, body, answer in _PATHS},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def page(features: Iterable[Feature] = ()) -> str:
    """The same as HTML."""
    schemas = document(features)["components"]["schemas"]
    parts = []
    for path, method, told, body, answer in _PATHS:
        parts.append(f"<h2>{method.upper()} {path}</h2><p>{html.escape(told)}</p>")
        for title, model in (("Body", body), ("Answer", answer)):
            if model is not None:
                text = html.escape(json.dumps(schemas[model.__name__]["properties"], indent=1))
                parts.append(f"<h3>{title}</h3><pre>{text}</pre>")
            if model is RecommendRequest:
                text = html.escape(json.dumps(schemas[HistoryEvent.__name__]["properties"], indent=1))
                parts.append(f"<h3>An event of the history</h3><pre>{text}</pre>")
    return _PAGE.format(version=html.escape(version("shardrec")), paths="".join(parts))


def _operation(told: str, body: type[BaseModel] | None, answer: type[BaseModel] | None) -> dict[str, Any]:
    found = {"description": "Done.", **({"content": _content(answer)} if answer is not None else {})}
    errors = {status: {"description": told, "content": _content(ErrorsAnswer)} for status, told in _ERRORS.items()}
    operation: dict[str, Any] = {"summary": told, "responses": {"200": found, **errors}}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _content(body)}
    return operation


def _content(model: type[BaseModel]) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{model.__name__}"}
    if model is EventRequest:
        schema = {"oneOf": [schema, {"type": "array", "items": schema}]}
    return {"application/json": {"schema": schema}}
