"""What clients send, with its bounds, and what is told of a body that does not fit."""

import math
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from launch.serve.id_map import KIND_WORDS, RawId

LATEST_TIME = 253_402_300_799_999
"""The end of the year 9999, in milliseconds."""
MAX_EVENTS = 1000
"""Events of one post."""
Number = Annotated[int, Strict(), Field(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=1024)]
Id = Annotated[Number | Text, Field(description="Raw id: a whole number or a text, as in the log.")]
MAX_FEATURES = 64
"""Features of one event."""

_FEATURE_WORDS = "must be a number, a text of at most 1,024 characters, a boolean or null"


def _feature_value(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= 1024:
        return value
    if value is None or isinstance(value, bool):
        return value
    is_number = isinstance(value, int) and -(2**63) <= value < 2**63
    if is_number or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise PydanticCustomError("feature_value", _FEATURE_WORDS)


FeatureValue = Annotated[
    Any,
    PlainValidator(_feature_value),
    WithJsonSchema({"type": ["number", "string", "boolean", "null"], "maxLength": 1024}),
]
Features = Annotated[
    dict[Annotated[str, Field(max_length=100)], FeatureValue],
    Field(
        max_length=MAX_FEATURES,
        description="Raw values of the event's features by name, as in the log; null or left out: it is missing.",
    ),
]
Time = Annotated[int, Strict(), Field(ge=0, le=LATEST_TIME, description="Milliseconds since 1970.")]


class InvalidRequest(Exception):
    """A body that a client can mend: the status, and each wrong field with what is wrong."""

    def __init__(self, status: int, errors: list[tuple[str | None, str]]) -> None:
        super().__init__(errors)
        self.status, self.errors = status, errors


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class HistoryEvent(_Body):
    """An event of a history; the order of the list counts, not the time."""

    item_id: Id
    timestamp: Time | None = None
    features: Features | None = None


class RecommendRequest(_Body):
    """Whom to recommend to: ``history``, or the known events of ``user_id``."""

    user_id: Id | None = Field(
        None, description="The user, whose events of the store and of `/events` are the history."
    )
    history: list[Id | HistoryEvent] | None = Field(
        None, description="Items, the oldest first; it is used in place of what is known of the user."
    )
    k: Annotated[int, Strict(), Field(ge=1)] = Field(10, description="How many items.")
    leave_out_seen: bool | None = Field(
        None, description="Whether items of the history are no candidates; by default as the model was evaluated."
    )
    allowed_items: Annotated[list[Id], Field(min_length=1)] | None = Field(None, description="The only candidates.")
    forbidden_items: list[Id] | None = Field(None, description="Items that are no candidates.")


class EventRequest(_Body):
    """One event of a user. A post may also be a list of events."""

    user_id: Id
    item_id: Id
    timestamp: Time | None = Field(None, description="Milliseconds since 1970; by default the server's time.")
    features: Features | None = None


_EVENTS = TypeAdapter(Annotated[list[EventRequest], Field(min_length=1, max_length=MAX_EVENTS)])
_NAMES = {name for model in (RecommendRequest, HistoryEvent, EventRequest) for name in model.model_fields}
_WORDS = {
    "history": "must be a whole number, a text of 1 to 1,024 characters, or an object with item_id",
    "id": "must be a whole number of 64 bits or a text of 1 to 1,024 characters",
}


def recommend_request(body: bytes) -> RecommendRequest:
    """Raises :class:`InvalidRequest`."""
    try:
        return RecommendRequest.model_validate_json(body)
    except ValidationError as error:
        raise _explained(error) from None


def event_requests(body: bytes) -> list[EventRequest]:
    """Of one event or of a list of events. Raises :class:`InvalidRequest`."""
    try:
        if body.lstrip(b" \t\r\n").startswith(b"["):
            return _EVENTS.validate_json(body)
        return [EventRequest.model_validate_json(body)]
    except ValidationError as error:
        raise _explained(error) from None


def check_kind(field: str, value: RawId, kind: type | None, what: str) -> None:
    """Raise :class:`InvalidRequest` for an id of a kind that no ``what`` has; any for ``kind`` None."""
    if kind is not None and type(value) is not kind:
        raise InvalidRequest(
            422, [(field, f"ids of {what} are {KIND_WORDS[kind]} here, not {KIND_WORDS[type(value)]}")]
        )


def check_kinds(field: str, items: list[RawId], kind: type) -> None:
    """:func:`check_kind` of a list of items."""
    if set(map(type, items)) - {kind}:
        for number, item in enumerate(items):
            check_kind(f"{field}[{number}]", item, kind, "items")


def _explained(error: ValidationError) -> InvalidRequest:
    found: dict[str, list[Any]] = {}
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        if each["type"] == "json_invalid":
            return InvalidRequest(400, [(None, f"the body is no JSON: {each['msg'].removeprefix('Invalid JSON: ')}")])
        found.setdefault(_field(each["loc"], each["type"]), []).append(each)
    for field in [field for field in found if any(other.startswith(f"{field}.") for other in found) and field]:
        del found[field]  # an event whose field is wrong is no id either
    return InvalidRequest(422, [(field or None, _message(field, each)) for field, each in list(found.items())[:10]])


def _field(location: tuple[int | str, ...], kind: str) -> str:
    """``history[3].timestamp``; the names of alternatives that pydantic tried are left out."""
    last = len(location) - 1
    text = ""
    for place, part in enumerate(location):
        if isinstance(part, int):
            text += f"[{part}]"
        elif part in _NAMES or location[place - 1] == "features" or (kind == "extra_forbidden" and place == last):
            text += f".{part[:100]}" if text else part[:100]
    return text


def _message(field: str, errors: list[Any]) -> str:
    """One line; where several alternatives were tried, what they are."""
    if len(errors) > 1:
        return _WORDS["history" if field.startswith("history[") and not field.endswith("id") else "id"]
    if errors[0]["type"] == "extra_forbidden":
        return "is no field of this request; values of an event's features are given in its object features"
    message: str = errors[0]["msg"]
    return message.removeprefix("Input ").removeprefix("Field ")
