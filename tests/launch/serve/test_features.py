"""Features of events in requests, posts and stores: the answers of `recommend` for the same histories."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest
from feature_log import FEATURES, raw_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.store.feature_encoding import encoded
from data_pipeline.store.manifest import load_manifest
from launch.serve.export_folder import read_export
from launch.serve.features import Features, WrongValueError
from served_client import Exported, ask, posting
from train.evaluation.preflight import evaluated_run
from train.recommend.run import recommend


def features_in(exported: Exported) -> Features:
    return read_export(exported.folder).features


def events_by_user(exported: Exported) -> dict[str, list[dict[str, Any]]]:
    """As a client sends them."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in raw_events(exported.store).iter_rows(named=True):
        features = {name: row[name] for name in FEATURES if row[name] is not None}
        event = {"item_id": row["item_id"], "timestamp": row["timestamp"], "features": features}
        found.setdefault(row["user_id"], []).append(event)
    return found


def lists_of_recommend(exported: Exported, output: Path, *overrides: str) -> dict[str, tuple[list[int], list[float]]]:
    recommend(evaluated_run([f"run_dir={exported.folder.parent}", f"recommend.output={output}", *overrides]))
    rows = pl.read_parquet(output).group_by("user_id", maintain_order=True).agg("item_id", "score")
    return {user: (items, scores) for user, items, scores in rows.iter_rows()}


def is_answer(answer: Any, expected: tuple[list[int], list[float]]) -> bool:
    """Scores decide where two items are equally good; ours are float32."""
    assert answer["source"] == "model"
    scores = [each["score"] for each in answer["items"]]
    return scores == pytest.approx(expected[1], rel=1e-4, abs=1e-4)


def test_the_answer_for_a_history_is_that_of_recommend(featured: Exported, tmp_path: Path) -> None:
    raw_events(featured.store).write_parquet(tmp_path / "histories.parquet")
    expected = lists_of_recommend(
        featured, tmp_path / "rows.parquet", f"recommend.histories={tmp_path}/histories.parquet"
    )
    histories = events_by_user(featured)

    async def answers(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(
            *(client.post("/recommend", json={"history": histories[user]}) for user in expected)
        )

    found = ask(featured.folder, answers)
    assert len(found) > 100
    for answer, wanted in zip(found, expected.values(), strict=True):
        assert answer.status_code == 200, answer.text
        assert is_answer(answer.json(), wanted)


def test_users_of_the_store_and_of_posted_events_have_their_features(featured: Exported, tmp_path: Path) -> None:
    """Half of the users are known from the store, the others have posted the same events under another name."""
    expected = lists_of_recommend(featured, tmp_path / "rows.parquet")
    histories = events_by_user(featured)

    async def answers(client: httpx.AsyncClient) -> list[Any]:
        posts = [{"user_id": f"posted {user}", **event} for user in list(expected)[:40] for event in histories[user]]
        assert (await client.post("/events", json=posts)).json() == {"received": len(posts), "new": len(posts)}
        names = [*expected, *(f"posted {user}" for user in list(expected)[:40])]
        return [(await client.post("/recommend", json={"user_id": name})).json() for name in names]

    found = ask(featured.folder, answers, f"serve.store={featured.store}", events=tmp_path / "events")
    wanted = [*expected.values(), *list(expected.values())[:40]]
    assert all(is_answer(*pair) for pair in zip(found, wanted, strict=True))


def test_events_of_unknown_items_are_left_out_with_their_features(featured: Exported, tmp_path: Path) -> None:
    user, history = next(iter(events_by_user(featured).items()))
    features = {"kind": "buy", "shop": 7, "price": 99}
    unknown = [
        {"item_id": 7, "timestamp": time, "features": features} for time in (10**12, history[1]["timestamp"], 10**13)
    ]
    mixed = [unknown[0], history[0], unknown[1], *history[1:], unknown[2]]

    async def answers(client: httpx.AsyncClient) -> list[Any]:
        posts = [{"user_id": user, **event} for event in unknown]
        assert (await client.post("/events", json=posts)).status_code == 200
        bodies = [{"history": history}, {"history": mixed}, {"user_id": user}]
        return [(await client.post("/recommend", json=body)).json() for body in bodies]

    plain, given_mixed, known = ask(featured.folder, answers, f"serve.store={featured.store}", events=tmp_path)
    assert plain["items"] == given_mixed["items"] == known["items"]
    assert given_mixed["history"]["unknown_items"] == known["history"]["unknown_items"] == 3


RAW_TEXTS = st.none() | st.sampled_from(["view", "buy", " cart", "return", "", "NULL", "nan"]) | st.text(max_size=6)
RAW_NUMBERS = st.none() | st.floats(-1e30, 1e30) | st.integers(-(2**50), 2**50)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(RAW_TEXTS, min_size=1, max_size=8), numbers=st.lists(RAW_NUMBERS, min_size=1, max_size=8))
def test_values_are_encoded_as_the_store_encodes_them(
    featured: Exported, texts: list[str | None], numbers: list[float | None]
) -> None:
    stored = load_manifest(featured.store).features
    for feature in features_in(featured):
        if feature.is_category:
            clean = [
                None if text is None or text.strip() in ("", "NULL", "nan", "null", "NaN", "None", "\\N") else text
                for text in texts
            ]
            expected = encoded(stored[feature.name], pl.Series(clean, dtype=pl.String)).to_list()
            assert [feature.encoded(text) for text in texts] == expected
            assert feature.encoded_column(pa.array(clean, pa.string())).tolist() == expected
        else:
            column = pl.Series([None if number is None else float(number) for number in numbers], dtype=pl.Float64)
            expected = encoded(stored[feature.name], column).to_list()
            assert feature.encoded_column(column.to_arrow()).tolist() == expected
            found = [feature.encoded(number) for number in numbers]
            assert pl.Series(found, dtype=pl.Float64).cast(pl.Float32).to_list() == expected


def test_numbers_and_booleans_are_categories_by_their_text(featured: Exported) -> None:
    shop = next(feature for feature in features_in(featured) if feature.name == "shop")
    assert shop.encoded(2) == shop.encoded(2.0) == shop.encoded("2")
    assert shop.encoded(2.5) == shop.encoded("2.5")
    assert shop.encoded(True) == shop.encoded("true")
    price = next(feature for feature in features_in(featured) if feature.name == "price")
    assert price.encoded(True) == price.encoded(1)
    with pytest.raises(WrongValueError, match="number"):
        price.encoded("1")


GOOD = {"kind": "view", "shop": 3, "price": 1.5, "stars": 2}


def sent(*features: Any) -> dict[str, Any]:
    return {"history": [{"item_id": 10, "features": each} for each in features]}


def posted(*features: Any) -> list[dict[str, Any]]:
    return [{"user_id": "a", "item_id": 10, "features": each} for each in features]


WRONG: list[tuple[Any, str, str]] = [
    (sent(GOOD | {"price": "x"}), "history[0].features.price", "must be a number"),
    (sent(GOOD | {"price": 1e38}), "history[0].features.price", "at most 1e+37"),
    (sent(GOOD, GOOD | {"kind": [1]}), "history[1].features.kind", "must be a number, a text"),
    (sent(GOOD | {"colour": "red"}), "history[0].features.colour", "reads kind, shop, price, stars"),
    (sent({"kind": "view"}), "history[0].features.shop", "is missing"),
    ({"history": [10]}, "history[0].features.shop", "is missing"),
    (sent([1]), "history[0].features", "an object"),
    ({"history": [{"item_id": 10, "kind": "view"}]}, "history[0].kind", "in its object features"),
    (sent(GOOD | {"kind": "\u00e4" * 600}), "history[0].features.kind", "1,024 bytes"),
    (posted(GOOD | {"stars": "many"}), "features.stars", "must be a number"),
    (posted(GOOD, None), "[1].features.shop", "is missing"),
    (posted(GOOD | {"kind": {"a": 1}}), "[0].features.kind", "must be a number, a text"),
]


def test_a_wrong_or_missing_feature_is_named(featured: Exported, tmp_path: Path) -> None:
    async def answers(client: httpx.AsyncClient) -> list[httpx.Response]:
        paths = ["/recommend" if isinstance(body, dict) else "/events" for body, _, _ in WRONG]
        return [await client.post(path, json=body) for path, (body, _, _) in zip(paths, WRONG, strict=True)]

    for answer, (body, field, told) in zip(ask(featured.folder, answers, events=tmp_path), WRONG, strict=True):
        assert answer.status_code == 422, (body, answer.text)
        errors = {each["field"]: each["message"] for each in answer.json()["errors"]}
        assert told in errors.get(field, ""), (body, answer.text)


def test_a_feature_that_training_knew_as_missing_may_be_missing(featured: Exported) -> None:
    """The kind and the price are missing in some events of the log, and stars are filled."""
    few = {"shop": 3}
    null = {"kind": None, "shop": 3, "price": None, "stars": None}
    filled = {"shop": 3, "stars": 3, "kind": "", "price": None}

    async def answers(client: httpx.AsyncClient) -> list[Any]:
        bodies = [{"history": [{"item_id": 10, "features": each}]} for each in (few, null, filled)]
        return [(await client.post("/recommend", json=body)).json()["items"] for body in bodies]

    found = ask(featured.folder, answers)
    assert found[0] == found[1] == found[2]


def test_events_keep_what_another_model_reads_and_those_without_features_count_as_missing(
    featured: Exported, exported: Exported, tmp_path: Path
) -> None:
    item = raw_events(featured.store)["item_id"][0]

    async def post(client: httpx.AsyncClient) -> None:
        given = {"features": {"kind": "view", "shop": 3, "price": "of another kind"}}
        for user, more in (("a", given), ("b", {})):
            event = {"user_id": user, "item_id": item, "timestamp": 1, **more}
            assert (await client.post("/events", json=event)).status_code in (200, 422)

    async def answers(client: httpx.AsyncClient) -> list[Any]:
        bodies = [
            {"user_id": "a"},
            {"history": [{"item_id": item, "features": {"kind": "view", "shop": 3}}]},
            {"user_id": "b"},
        ]
        return [(await client.post("/recommend", json=body)).json() for body in bodies]

    ask(without_kinds_of_ids(exported), post, events=tmp_path)
    known, same, bare = ask(featured.folder, answers, events=tmp_path)
    assert known["items"] == same["items"]
    assert bare["source"] == "model"


def without_kinds_of_ids(exported: Exported) -> Path:
    """The export without features has users and items of whole numbers, of which none is checked for users."""
    return exported.folder


def test_a_store_without_the_feature_is_refused_by_name(featured: Exported, exported: Exported) -> None:
    from configs.errors import DataError

    async def nothing(client: httpx.AsyncClient) -> None:
        pass

    with pytest.raises(DataError, match=r"serve\.store=.* has no feature 'kind'"):
        ask(featured.folder, nothing, f"serve.store={exported.store}")


def test_the_documents_name_the_features(featured: Exported, exported: Exported) -> None:
    async def test(client: httpx.AsyncClient) -> tuple[Any, str]:
        return (await client.get("/openapi.json")).json(), (await client.get("/docs")).text

    document, page = ask(featured.folder, test)
    for model in ("HistoryEvent", "EventRequest"):
        assert set(document["components"]["schemas"][model]["properties"]["features"]["properties"]) == set(FEATURES)
    assert all(name in page for name in FEATURES)
    other, _ = ask(exported.folder, test)
    assert not other["components"]["schemas"]["HistoryEvent"]["properties"]["features"]["properties"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.floats() | st.integers() | st.sampled_from([1e37, -1e37, 1e36, 10**400, 5e-324, True])
LIKELY_FEATURES = st.fixed_dictionaries(
    {"shop": st.integers(0, 40) | st.text(max_size=3)},
    optional={
        "kind": st.sampled_from(["view", "buy", "", "\x00", "ä" * 600]) | st.none() | st.floats(),
        "price": NUMBERS | st.none(),
        "stars": NUMBERS | st.none(),
        "colour": st.text(max_size=3),
    },
)
ANY_FEATURES = (
    LIKELY_FEATURES | st.dictionaries(st.sampled_from(FEATURES) | st.text(max_size=4), JSON, max_size=5) | JSON
)
EVENTS = st.fixed_dictionaries(
    {"item_id": st.integers(0, 60).map(lambda item: item * 10), "features": ANY_FEATURES},
    optional={"timestamp": st.integers(0, 10**13) | JSON},
)
POSTS = EVENTS.map(lambda event: {"user_id": "fuzz", **event})
BODIES = st.tuples(
    st.just("/recommend"), st.fixed_dictionaries({"history": st.lists(EVENTS, max_size=6)})
) | st.tuples(st.just("/events"), POSTS | st.lists(POSTS, max_size=4))


def test_no_features_make_the_server_fail(featured: Exported, tmp_path: Path) -> None:
    """NaN and Infinity are sent too, as Python's json writes them. What was posted is asked for at once."""

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    @given(asked=BODIES)
    def check(asked: tuple[str, Any]) -> None:
        for path, body in (asked, ("/recommend", {"user_id": "fuzz"})):
            answer = post(path, json.dumps(body))
            assert answer.status_code < 500, answer.text
            assert answer.status_code == 200 or answer.json()["errors"]

    with posting(featured, tmp_path) as post:
        check()
