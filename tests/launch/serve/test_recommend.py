"""The server's answers are those of the run, whatever comes together, and its own where nothing is known."""

import asyncio
import json
from typing import Any

import httpx
import polars as pl
import torch

from launch.serve.ranking import Candidates, best_of
from served_client import Exported, ask


def examples_of(exported: Exported) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((exported.folder / "example.json").read_text())["examples"]
    return found


def asked(example: dict[str, Any]) -> dict[str, Any]:
    return {
        "history": example["history"],
        "forbidden_items": example["seen"],
        "leave_out_seen": False,
        "k": len(example["recommended"]),
    }


def test_the_answers_are_those_of_the_run_alone_and_together(exported: Exported) -> None:
    examples = examples_of(exported)

    async def all_at_once(client: httpx.AsyncClient) -> list[httpx.Response]:
        alone = [await client.post("/recommend", json=asked(each)) for each in examples]
        return [
            *alone,
            *await asyncio.gather(*(client.post("/recommend", json=asked(each)) for each in examples * 10)),
        ]

    for answer, example in zip(ask(exported.folder, all_at_once), examples * 11, strict=True):
        assert answer.status_code == 200, answer.text
        found = answer.json()
        scores = [each["score"] for each in found["items"]]
        assert found["source"] == "model"
        torch.testing.assert_close(scores, example["scores"], rtol=1e-4, atol=1e-4)
        assert {each["item_id"] for each in found["items"]} == set(example["recommended"])


def test_equal_scores_are_ordered_by_row_and_what_is_no_candidate_is_never_there() -> None:
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randint(-1, 2, (200, 3), generator=draw).float()  # many equal scores
    query = torch.randint(-1, 2, (16, 3), generator=draw).float()
    wanted = [
        Candidates(
            k=number * 13 % 40 + 1,
            left_out=torch.randint(200, (number * 7,), generator=draw).tolist(),
            allowed=None if number % 3 else torch.randint(200, (number * 4 + 1,), generator=draw).tolist(),
        )
        for number in range(16)
    ]
    for found, each, own in zip(best_of(query, vectors, wanted), wanted, query, strict=True):
        candidates = set(range(200) if each.allowed is None else each.allowed) - set(each.left_out)
        score = vectors @ own
        expected = sorted(candidates, key=lambda row, score=score: (-float(score[row]), row))[: each.k]
        assert found.rows == expected
        assert found.scores == [float(score[row]) for row in expected]


def test_unknown_items_are_counted_and_a_user_without_history_gets_popular_items(exported: Exported) -> None:
    counts = pl.read_parquet(exported.folder / "items.parquet").sort("count", descending=True, maintain_order=True)
    items = counts["raw_item"].to_list()

    async def test(client: httpx.AsyncClient) -> list[Any]:
        bodies = [
            {"history": [items[3], 10**15, items[4]], "k": 5},
            {"user_id": 10**15, "k": 5},
            {"history": [10**15], "k": 5, "forbidden_items": [items[0]], "allowed_items": [*items[:3], 10**16]},
        ]
        return [(await client.post("/recommend", json=body)).json() for body in bodies]

    known, cold, bounded = ask(exported.folder, test)
    assert known["source"] == "model"
    assert known["history"] == {"source": "request", "events": 2, "unknown_items": 1}
    assert not {items[3], items[4]} & {each["item_id"] for each in known["items"]}
    assert cold["source"] == "popular"
    assert [each["item_id"] for each in cold["items"]] == items[:5]
    assert [each["item_id"] for each in bounded["items"]] == items[1:3]
    assert bounded["unknown_candidates"] == 1


def test_a_known_user_has_the_history_of_the_store_and_of_the_events_posted_since(
    exported: Exported, tmp_path: Any
) -> None:
    row = pl.read_parquet(f"{exported.store}/histories/part-00000.parquet").row(7, named=True)
    raw_items = pl.read_parquet(f"{exported.store}/items.parquet")["raw_item"].to_list()
    history, clicked = [raw_items[item] for item in row["item"]], raw_items[-1]

    async def test(client: httpx.AsyncClient) -> list[Any]:
        known = {"user_id": row["raw_user"], "k": 5}
        found = [
            await client.post("/recommend", json=known),
            await client.post("/recommend", json={"history": history, "k": 5}),
        ]
        click = {"user_id": row["raw_user"], "item_id": clicked}
        found += [await client.post("/events", json=click)]
        longer = {"history": [*history, clicked], "k": 5}
        found += [await client.post("/recommend", json=known), await client.post("/recommend", json=longer)]
        return [each.json() for each in found]

    known, given, kept, after, longer = ask(
        exported.folder, test, f"serve.store={exported.store}", events=tmp_path / "events"
    )
    assert known["history"]["source"] == "known"
    assert known["items"] == given["items"]
    assert kept == {"received": 1, "new": 1}
    assert after["history"]["events"] == known["history"]["events"] + 1
    assert after["items"] == longer["items"], "the next answer knows the click"
