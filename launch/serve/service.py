"""From a request to its answer: raw ids in and out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.schema.serve import ServeConfig
from launch.serve.answers import recommendations
from launch.serve.batching import Batches
from launch.serve.events import Event, EventLog
from launch.serve.features import Codes, Value, features_as_json
from launch.serve.histories import merged
from launch.serve.id_map import RawId
from launch.serve.metrics import Metrics
from launch.serve.model import Model, Query
from launch.serve.ranking import Best, Candidates
from launch.serve.requests import (
    EventRequest,
    HistoryEvent,
    InvalidRequest,
    RecommendRequest,
    check_kind,
    check_kinds,
)
from launch.serve.served import State

Job = tuple[Model, Query]
SECONDS_END, MILLISECONDS_BEGIN = 10**10, 10**11
"""A time below the first is seconds where the store's times are milliseconds; it would be of the year 1970."""

_FIELD_OF = {"request": "history", "known": "user_id"}
_NOT_FINITE = "the features of the history give no finite scores: a number is too far from those of the training"


@dataclass(frozen=True, slots=True)
class _History:
    """``items`` the oldest first with their features, and where they are from."""

    source: str
    items: Sequence[RawId]
    features: Sequence[Codes | str | None]
    """Encoded, or as JSON; empty where the model reads none."""

    def known(self, model: Model) -> tuple[list[int], list[Codes]]:
        """Rows of the items that ``model`` knows, and the codes of as many of the last ones as it reads."""
        if not len(model.features):
            return model.items.rows_of(self.items), []
        rows = [model.items.row_of.get(item) for item in self.items]
        newest = [each for each, row in zip(self.features, rows, strict=True) if row is not None]
        codes = [
            each if isinstance(each, tuple) else model.features.codes_of_json(each)
            for each in newest[-model.max_history :]
        ]
        return [row for row in rows if row is not None], codes


class Service:
    """Answers with the :class:`State` that it is given; events go to ``log``, none where events are refused."""

    def __init__(self, config: ServeConfig, metrics: Metrics, log: EventLog | None) -> None:
        self._config, self._metrics, self._log = config, metrics, log
        self.queries = Batches[Job, Best](
            self._recommend,
            name="model",
            max_size=config.max_batch_size,
            max_wait_s=config.max_wait_ms / 1000,
            max_queue=config.max_queue,
        )
        self.posts = Batches[list[Event], int](
            self._keep, name="events", max_size=1024, max_wait_s=0, max_queue=config.max_queue
        )
        metrics.watch_queue(lambda: len(self.queries))

    async def recommend(self, request: RecommendRequest, state: State) -> dict[str, Any]:
        """As :class:`RecommendAnswer` has it. Raises :class:`InvalidRequest` and :class:`QueueFullError`."""
        model = state.model
        sent = None if request.history is None else [_item_of(each) for each in request.history]
        self._check(request, sent or [], state)
        history = self._known_history(request, state) if sent is None else _sent_history(request, sent, model)
        rows, codes = history.known(model)
        leave_out_seen = model.leave_out_seen if request.leave_out_seen is None else request.leave_out_seen
        forbidden, allowed = request.forbidden_items or [], request.allowed_items
        left_out = model.items.rows_of(forbidden) + (rows if leave_out_seen else [])
        known = None if allowed is None else model.items.rows_of(allowed)
        candidates = Candidates(request.k, left_out, known)
        user = None if model.users is None or request.user_id is None else model.users.row_of.get(request.user_id)
        is_known = bool(rows) and (model.users is None or user is not None)
        if is_known:
            best = await self.queries.result_of((model, Query(rows[-model.max_history :], candidates, user, codes)))
            if not best.is_finite:
                raise InvalidRequest(422, [(_FIELD_OF[history.source], _NOT_FINITE)])
        else:
            best = model.popular(candidates)
        source = "model" if is_known else "popular"
        self._metrics.sources.labels(source).inc()
        asked = [*forbidden, *(allowed or [])]
        return {
            "items": recommendations(model.items.raw_ids, best.rows, best.scores),
            "source": source,
            "history": {
                "source": history.source,
                "events": len(rows),
                "unknown_items": len(history.items) - len(rows),
            },
            "unknown_candidates": len(asked) - len(model.items.rows_of(asked)),
            "model_version": model.version,
        }

    async def keep(self, requests: Sequence[EventRequest], state: State | None) -> dict[str, Any]:
        """As :class:`EventsAnswer` has it. Raises :class:`InvalidRequest`, :class:`QueueFullError` and
        :class:`sqlite3.Error`."""
        if self._log is None:
            raise InvalidRequest(404, [(None, "no events are kept here: serve.events=none")])
        now = time.time_ns() // 1_000_000
        for number, each in enumerate(requests):
            _check_event(each, state, f"[{number}]." if len(requests) > 1 else "")
        events = [_event_of(each, now) for each in requests]
        new = await self.posts.result_of(events)
        self._metrics.events.inc(new)
        return {"received": len(events), "new": new}

    def _recommend(self, jobs: list[Job]) -> list[Best]:
        """In the thread of the model. Jobs of a model that was replaced meanwhile are a batch of their own."""
        self._metrics.batch_size.observe(len(jobs))
        found: dict[int, Best] = {}
        for model in {id(model): model for model, _ in jobs}.values():
            places = [place for place, (each, _) in enumerate(jobs) if each is model]
            found |= zip(places, model.recommend([jobs[place][1] for place in places]), strict=True)
        return [found[place] for place in range(len(jobs))]

    def _keep(self, posts: list[list[Event]]) -> list[int]:
        assert self._log is not None, "posts are refused without it"
        return self._log.append(posts)

    def _check(self, request: RecommendRequest, sent: list[RawId], state: State) -> None:
        model, most = state.model, min(self._config.max_k, len(state.model.items))
        if request.k > most:
            raise InvalidRequest(422, [("k", f"must be at most {most:,} (serve.max_k, or the items that there are)")])
        if request.user_id is None and request.history is None:
            raise InvalidRequest(422, [("user_id", "send user_id, or history, or both")])
        if len(sent) > self._config.max_history:
            told = f"must have at most {self._config.max_history:,} events (serve.max_history)"
            raise InvalidRequest(422, [("history", told)])
        check_kinds("history", sent, model.items.kind)
        check_kinds("allowed_items", request.allowed_items or [], model.items.kind)
        check_kinds("forbidden_items", request.forbidden_items or [], model.items.kind)
        if request.user_id is not None:
            check_kind("user_id", request.user_id, _user_kind(state), "users")

    def _known_history(self, request: RecommendRequest, state: State) -> _History:
        assert request.user_id is not None, "one of both is there"
        stored = [] if state.store is None else state.store.history(request.user_id)
        posted = [] if self._log is None else self._log.history(request.user_id, self._config.max_history)
        events = merged(stored, posted, state.store is None or state.store.has_times)
        source = "known" if events else "none"
        return _History(source, [event[0] for event in events], [event[2] for event in events])


def _sent_history(request: RecommendRequest, items: list[RawId], model: Model) -> _History:
    """Raises :class:`InvalidRequest` for features of an event that are not the model's."""
    codes = list[Codes]()
    for number, event in enumerate(request.history or ()):
        given = (event.features if isinstance(event, HistoryEvent) else None) or {}
        if given or len(model.features):
            codes.append(_checked_codes(model, given, f"history[{number}].", others_allowed=False))
    return _History("request", items, codes)


def _checked_codes(model: Model, given: Mapping[str, Value], prefix: str, *, others_allowed: bool) -> Codes:
    codes, wrong = model.features.read(given, others_allowed=others_allowed)
    if wrong:
        raise InvalidRequest(422, [(f"{prefix}features.{name}", told) for name, told in wrong.items()])
    return codes


def _event_of(request: EventRequest, now: int) -> Event:
    timestamp = now if request.timestamp is None else request.timestamp
    return Event(request.user_id, request.item_id, timestamp, features_as_json(request.features))


def _item_of(event: RawId | HistoryEvent) -> RawId:
    return event.item_id if isinstance(event, HistoryEvent) else event


def _user_kind(state: State) -> type | None:
    if state.model.users is not None:
        return state.model.users.kind
    return None if state.store is None else state.store.users.kind


def _check_event(event: EventRequest, state: State | None, prefix: str) -> None:
    if state is None:
        return
    check_kind(f"{prefix}item_id", event.item_id, state.model.items.kind, "items")
    check_kind(f"{prefix}user_id", event.user_id, _user_kind(state), "users")
    _checked_codes(state.model, event.features or {}, prefix, others_allowed=True)
    is_milliseconds = (
        state.store is not None and state.store.has_times and state.store.first_time_ms > MILLISECONDS_BEGIN
    )
    if is_milliseconds and event.timestamp is not None and event.timestamp < SECONDS_END:
        told = "must be in milliseconds since 1970, as the store's are; this is of January 1970"
        raise InvalidRequest(422, [(f"{prefix}timestamp", told)])
