"""What the server answers, as JSON."""

import json
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from launch.serve.id_map import RawId


class Recommendation(BaseModel):
    """An item and its score: of a model the dot product, of popular items the number of events."""

    item_id: int | str
    score: float


class HistoryUsed(BaseModel):
    """The history that was read."""

    source: str = Field(description="`request`, `known` (store and events) or `none`.")
    events: int = Field(description="Events that the model knows.")
    unknown_items: int = Field(description="Events left out, since the model does not know their items.")


class RecommendAnswer(BaseModel):
    """The best items first; fewer than `k` where there are fewer candidates."""

    items: list[Recommendation]
    source: str = Field(description="`model`, or `popular` for a user of whom nothing is known.")
    history: HistoryUsed
    unknown_candidates: int = Field(description="Allowed and forbidden items that the model does not know.")
    model_version: str


class EventsAnswer(BaseModel):
    """The events are on the disk."""

    received: int
    new: int = Field(description="Without those that were kept already.")


class ReloadAnswer(BaseModel):
    """The model that answers from now on."""

    model_version: str
    changed: bool


class StateAnswer(BaseModel):
    """Whether requests are answered."""

    status: str
    model_version: str | None = None


class FieldError(BaseModel):
    """What is wrong, and where in the body."""

    field: str | None
    message: str


class ErrorsAnswer(BaseModel):
    """Why a request was not answered."""

    errors: list[FieldError]


def json_answer(document: dict[str, Any], status: int = 200) -> Response:
    """``document`` as an answer."""
    content = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(content.encode("utf-8", "replace"), status, media_type="application/json")


def errors_answer(status: int, errors: list[tuple[str | None, str]]) -> Response:
    """An answer that names each wrong field; None: the request as a whole."""
    return json_answer({"errors": [{"field": field, "message": told} for field, told in errors]}, status)


def recommendations(raw_ids: list[RawId], rows: list[int], scores: list[float]) -> list[dict[str, Any]]:
    """As :class:`RecommendAnswer` has them."""
    return [{"item_id": raw_ids[row], "score": score} for row, score in zip(rows, scores, strict=True)]
