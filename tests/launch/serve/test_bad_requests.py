"""What a client sends wrongly is answered with the field's name and a status of its own, never with a failure."""

import json
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from served_client import Exported, ask, posting

WRONG: list[tuple[str, Any, str | None]] = [
    ("/recommend", {"history": [1], "k": 0}, "k"),
    ("/recommend", {"history": [1], "k": 10**6}, "k"),
    ("/recommend", {"history": [1], "k": "3"}, "k"),
    ("/recommend", {"k": 3}, "user_id"),
    ("/recommend", {"history": "1"}, "history"),
    ("/recommend", {"history": [1, True]}, "history[1]"),
    ("/recommend", {"history": ["a"]}, "history[0]"),
    ("/recommend", {"history": [{"item_id": 1, "timestamp": "x"}]}, "history[0].timestamp"),
    ("/recommend", {"history": [1] * 3000}, "history"),
    ("/recommend", {"history": [1], "allowed_items": []}, "allowed_items"),
    ("/recommend", {"history": [1], "allowed_items": [1, None]}, "allowed_items[1]"),
    ("/recommend", {"history": [1], "kk": 3}, "kk"),
    ("/recommend", {"user_id": 2**70}, "user_id"),
    ("/events", {"user_id": 1}, "item_id"),
    ("/events", {"user_id": 1, "item_id": 1, "timestamp": -1}, "timestamp"),
    ("/events", [{"user_id": 1, "item_id": 1}, {"user_id": 1, "item_id": "a"}], "[1].item_id"),
    ("/events", [], None),
]
NO_JSON = [b"", b"{", b"\xff", b"[" * 100_000, b"NaN", b'{"k":1', b"9" * 10_000]


def test_a_wrong_field_is_named(exported: Exported, tmp_path: Path) -> None:
    async def answers(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post(path, json=body) for path, body, _ in WRONG]

    for answer, (_, body, field) in zip(ask(exported.folder, answers, events=tmp_path), WRONG, strict=True):
        assert answer.status_code == 422, (body, answer.text)
        assert field in [each["field"] for each in answer.json()["errors"]], (body, answer.text)


def test_what_is_no_json_is_told(exported: Exported, tmp_path: Path) -> None:
    async def answers(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [await client.post(path, content=body) for path in ("/recommend", "/events") for body in NO_JSON]

    for answer in ask(exported.folder, answers, events=tmp_path):
        assert answer.status_code in (400, 422)
        assert answer.json()["errors"]


def test_a_body_that_is_too_large_is_refused_whether_its_size_is_announced_or_not(exported: Exported) -> None:
    async def chunks() -> Any:
        for _ in range(40):
            yield b" " * 1024

    async def test(client: httpx.AsyncClient) -> list[int]:
        answers = [
            await client.post("/recommend", content=b" " * 40_000),
            await client.post("/recommend", content=chunks()),
            await client.post("/recommend", content=b'{"user_id": 1}' + b" " * 10_000),
        ]
        return [each.status_code for each in answers]

    assert ask(exported.folder, test, "serve.max_body_kib=16") == [413, 413, 200]


def test_without_the_token_only_probes_are_answered(exported: Exported) -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in ("/health", "/ready"):
            assert (await client.get(path)).status_code == 200
        for given_header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret-token"}):
            for path in ("/metrics", "/docs", "/nothing"):
                assert (await client.get(path, headers=given_header)).status_code == 401
            assert (await client.post("/recommend", json={"user_id": 1}, headers=given_header)).status_code == 401
        right = {"Authorization": "Bearer s3cret-token"}
        assert (await client.post("/recommend", json={"user_id": 1}, headers=right)).status_code == 200

    ask(exported.folder, test, token="s3cret-token")


def test_a_web_page_of_another_origin_is_refused(exported: Exported) -> None:
    async def test(client: httpx.AsyncClient) -> list[int]:
        origins = ["http://evil.example", "null", "http://test"]
        answers = [await client.post("/recommend", json={"user_id": 1}, headers={"Origin": each}) for each in origins]
        return [each.status_code for each in answers]

    assert ask(exported.folder, test) == [403, 403, 200]


def test_the_documents_and_the_metrics_say_what_there_is(exported: Exported) -> None:
    async def test(client: httpx.AsyncClient) -> tuple[Any, str, str]:
        await client.post("/recommend", json={"user_id": 1})
        await client.get("/no/such/path")
        found = [await client.get(path) for path in ("/openapi.json", "/docs", "/metrics")]
        return found[0].json(), found[1].text, found[2].text

    document, page, metrics = ask(exported.folder, test)
    for path in ("/recommend", "/events", "/reload", "/health", "/ready", "/metrics"):
        assert path in document["paths"]
        assert path in page
    text = json.dumps(document)
    for name in {each.split('"')[0] for each in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"], f"{name} is referred to"
    assert 'shardrec_requests_total{path="/recommend",status="200"} 1.0' in metrics
    assert 'path="other",status="404"' in metrics
    assert "shardrec_model_info{version=" in metrics


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("user_id", "history", "k", "leave_out_seen", "allowed_items", "forbidden_items", "item_id", "timestamp")
IDS = st.integers(0, 2000) | st.sampled_from([2**63 - 1, -(2**63)])
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "user_id": IDS | st.text(max_size=4),
        "history": st.lists(IDS | st.fixed_dictionaries({"item_id": IDS}), max_size=12),
        "k": st.integers(-1, 90),
        "leave_out_seen": st.none() | st.booleans(),
        "allowed_items": st.none() | st.lists(IDS, max_size=5),
        "forbidden_items": st.none() | st.lists(IDS, max_size=5),
    },
)
BODIES = JSON | LIKELY | st.dictionaries(st.sampled_from(FIELDS), JSON)


def test_no_request_makes_the_server_fail(exported: Exported, tmp_path: Path) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(path=st.sampled_from(["/recommend", "/events"]), body=BODIES.map(json.dumps) | st.binary(max_size=40))
    def check(path: str, body: str | bytes) -> None:
        answer = post(path, body)
        assert answer.status_code < 500, answer.text
        assert answer.status_code == 200 or answer.json()["errors"]

    with posting(exported, tmp_path) as post:
        check()
