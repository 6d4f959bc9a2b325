"""Features of events: cleaned as a plain loop cleans them, whatever the layout of the log and the memory."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from logs import FEATURES, Interrupting, feature_log, files_of, newest_of

from configs.errors import ConfigError, DataError
from configs.load import load_config
from configs.schema import ColumnsConfig, DataConfig
from configs.schema.features import FeatureConfig, FeatureType
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.write import history_writer
from data_pipeline.store.feature_encoding import bucket_of, encoded
from data_pipeline.store.manifest import load_manifest

NUMBER, CATEGORY = FeatureType.NUMBER, FeatureType.CATEGORY
SMALL = {"memory_gib": 1e-4}


def write_files(rows: pl.DataFrame, folder: Path, num_files: int) -> str:
    folder.mkdir()
    for k in range(num_files):
        rows[k * len(rows) // num_files : (k + 1) * len(rows) // num_files].write_parquet(folder / f"{k}.parquet")
    return str(folder)


def used_events(store: Path, names: list[str]) -> list[dict[str, object]]:
    """Every event of a store, by user and in order, with the raw ids."""
    items = pl.read_parquet(newest_of(store) / "items.parquet")["raw_item"].to_list()
    rows = pl.read_parquet(newest_of(store) / "histories" / "*.parquet").select(
        "raw_user", "item", "timestamp", *names
    )
    events = rows.explode("item", "timestamp", *names).to_dicts()
    return [{**event, "item": items[event["item"]]} for event in events]


def expected_events(rows: pl.DataFrame) -> list[dict[str, object]]:
    """What ``FEATURES`` make of ``rows``, one value after another."""
    events = sorted(rows.to_dicts(), key=lambda event: (event["user_id"], event["timestamp"]))
    kinds = Counter(event["event_type"] for event in events if event["event_type"] is not None)
    order = sorted(kinds, key=lambda kind: (-kinds[kind], kind))[:3]
    prices = [None if math.isnan(event["price"]) else event["price"] for event in events]
    present = [price for price in prices if price is not None]
    mean = sum(present) / len(present)
    filled = [mean if price is None else price for price in prices]
    std = math.sqrt(sum((price - mean) ** 2 for price in filled) / len(filled))
    stars = [-1 if event["stars"] is None else event["stars"] for event in events]
    return [
        {
            "raw_user": event["user_id"],
            "item": event["item_id"],
            "timestamp": event["timestamp"],
            "kind": 0
            if event["event_type"] is None
            else 2 + order.index(kind)
            if (kind := event["event_type"]) in order
            else 1,
            "shop": 2 + bucket_of("no shop" if event["shop"] in ("NULL", "") else event["shop"], 5),
            "price": (price - mean) / std,
            "stars": (star - min(stars)) / (max(stars) - min(stars)),
            "raised": price,
        }
        for event, price, star in zip(events, filled, stars, strict=True)
    ]


def assert_equal_events(found: list[dict[str, object]], expected: list[dict[str, object]]) -> None:
    assert len(found) == len(expected) > 0
    for name in expected[0]:
        ours, theirs = ([event[name] for event in events] for events in (found, expected))
        if isinstance(theirs[0], float):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            assert ours == theirs, name


@pytest.mark.parametrize("memory", [{}, SMALL], ids=["at once", "spilled"])
def test_values_are_cleaned_as_a_plain_loop_cleans_them(tmp_path: Path, memory: dict[str, float]) -> None:
    rows = feature_log(3000)
    log = write_files(rows, tmp_path / "log", 4)
    manifest = prepare(DataConfig(log=log, store=str(tmp_path / "store"), features=FEATURES, **memory))
    assert_equal_events(used_events(tmp_path / "store", list(FEATURES)), expected_events(rows))
    assert manifest == load_manifest(str(tmp_path / "store"))
    assert manifest.columns == ["item", "timestamp", *FEATURES]
    assert manifest.features["kind"].num_missing == rows["event_type"].null_count() > 0
    assert manifest.features["stars"].num_missing == rows["stars"].null_count() > 0
    assert manifest.rows_read == manifest.rows_used == len(rows)
    types = pl.read_parquet_schema(tmp_path / "store" / "histories" / "part-00000.parquet")
    assert [types[name].inner for name in ("kind", "shop", "price")] == [pl.Int32, pl.Int32, pl.Float32]


def test_standardised_numbers_have_mean_0_and_deviation_1_over_the_events_that_are_used(tmp_path: Path) -> None:
    log = write_files(feature_log(3000), tmp_path / "log", 2)
    config = DataConfig(log=log, store=str(tmp_path / "store"), features=FEATURES, min_user_events=80, **SMALL)
    manifest = prepare(config)
    assert 0 < manifest.num_events < 3000
    price = np.array([event["price"] for event in used_events(tmp_path / "store", ["price"])], dtype=np.float64)
    assert manifest.features["price"].num_values == len(price)
    assert abs(price.mean()) < 1e-6
    assert abs(price.std() - 1) < 1e-6


def test_neither_files_nor_memory_nor_format_reach_statistics_values_or_fingerprint(tmp_path: Path) -> None:
    rows = feature_log(2000).unique(["user_id", "timestamp"], keep="first", maintain_order=True)
    shuffled = rows.sample(fraction=1.0, shuffle=True, seed=1)
    (tmp_path / "csv").mkdir()
    shuffled.write_csv(tmp_path / "csv" / "log.csv")
    shuffled.write_ndjson(tmp_path / "csv" / "log.jsonl")
    logs = [write_files(rows, tmp_path / "one", 1), write_files(shuffled, tmp_path / "many", 7)]
    logs += [str(tmp_path / "csv" / "log.csv"), str(tmp_path / "csv" / "log.jsonl")]
    found = []
    for k, log in enumerate(logs):
        store = tmp_path / f"store-{k}"
        manifest = prepare(DataConfig(log=log, store=str(store), features=FEATURES, **(SMALL if k else {})))
        found.append((manifest, pl.read_parquet(store / "histories" / "*.parquet")))
    for manifest, histories in found[1:]:
        assert manifest == found[0][0]
        assert histories.equals(found[0][1])


def test_the_fingerprint_follows_features_and_their_choices_and_is_as_before_without_any(tmp_path: Path) -> None:
    rows = feature_log(300)
    others = [
        rows,
        rows.with_columns(pl.col("stars").fill_null(5)),
        rows.with_columns(
            pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("x")).otherwise("event_type").alias("event_type")
        ),
    ]
    prints, plain = set(), set()
    for k, log in enumerate(others):
        log.write_parquet(tmp_path / f"{k}.parquet")
        config = {"log": str(tmp_path / f"{k}.parquet"), "store": str(tmp_path / f"store-{k}")}
        prints.add(prepare(DataConfig(**config, features=FEATURES)).fingerprint)
        plain.add(prepare(DataConfig(**config)).fingerprint)
        assert "features" not in (newest_of(tmp_path / f"store-{k}") / "manifest.json").read_text()
        assert "features" not in (newest_of(tmp_path / f"store-{k}") / "prepared_from.json").read_text()
    other_choice = {**FEATURES, "kind": FeatureConfig(column="event_type", max_values=2)}
    prints.add(prepare(DataConfig(**config, features=other_choice)).fingerprint)
    assert len(prints) == 4
    assert len(plain) == 1


def test_features_do_not_decide_what_is_a_duplicate(tmp_path: Path) -> None:
    feature_log(2000).write_parquet(tmp_path / "log.parquet")
    found = [
        prepare(
            DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "s"), deduplicate=True, features=f)
        )
        for f in ({}, FEATURES)
    ]
    assert found[0].rows_filtered == found[1].rows_filtered
    assert found[0].rows_filtered["duplicate"] > 0


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_what_is_no_number_is_quarantined_with_its_reason_and_counted(tmp_path: Path, suffix: str) -> None:
    prices = ["1.5", " 2 ", "", "NaN", "nan", "cheap", "1e300", "inf", "-3", None, "NULL", "0x10"]
    rows = pl.DataFrame({"user_id": [1] * 12, "item_id": [2] * 12, "timestamp": range(12), "price": prices})
    path = tmp_path / f"log.{suffix}"
    {"parquet": rows.write_parquet, "csv": rows.write_csv, "jsonl": rows.write_ndjson}[suffix](path)
    config = DataConfig(
        log=str(path),
        store=str(tmp_path / "store"),
        features={"price": FeatureConfig(type=NUMBER)},
        max_bad_fraction=0.5,
    )
    manifest = prepare(config)
    assert manifest.rows_quarantined == {"price_not_a_number": 2, "price_out_of_range": 2}
    assert manifest.rows_read == manifest.rows_used + 4 == 12
    assert manifest.features["price"].num_missing == 5
    assert manifest.features["price"].filled_by == pytest.approx(0.5 / 3)
    kept = pl.read_parquet(tmp_path / "store" / "quarantine" / "*.parquet")
    assert sorted(kept["price"].to_list()) == ["0x10", "1e300", "cheap", "inf"]
    assert "typed_feature_price" not in kept.columns


def test_an_append_applies_the_statistics_of_the_store(tmp_path: Path) -> None:
    first, second = feature_log(800), feature_log(400, seed=1).with_columns(pl.col("price") * 100)
    second = second.with_columns(pl.col("event_type").replace("buy", "refund"))
    for name, rows in (("a", first), ("b", second)):
        rows.write_parquet(tmp_path / f"{name}.parquet")
    config = {"store": str(tmp_path / "store"), "features": FEATURES}
    before = prepare(DataConfig(log=str(tmp_path / "a.parquet"), **config))
    after = prepare(DataConfig(log=str(tmp_path / "b.parquet"), append=True, **config, **SMALL))
    assert after.features == before.features
    assert after.num_events == 1200
    whole = pl.concat([first, second]).with_columns(
        pl.col("price").fill_nan(None), pl.when(~pl.col("shop").is_in(["NULL", ""])).then("shop").alias("shop")
    )
    whole = whole.sort("user_id", "timestamp", maintain_order=True)
    found = used_events(tmp_path / "store", list(FEATURES))
    for name, feature in FEATURES.items():
        column = whole[feature.column or name]
        raw = column.cast(pl.Float64 if feature.type is NUMBER else pl.String)
        assert [event[name] for event in found] == encoded(before.features[name], raw).to_list(), name
    codes = [event["kind"] for event, kind in zip(found, whole["event_type"], strict=True) if kind == "refund"]
    assert set(codes) == {1}


def test_an_append_with_other_features_is_refused_by_the_key(tmp_path: Path) -> None:
    feature_log(100).write_parquet(tmp_path / "a.parquet")
    feature_log(100, seed=1).write_parquet(tmp_path / "b.parquet")
    store = str(tmp_path / "store")
    prepare(DataConfig(log=str(tmp_path / "a.parquet"), store=store, features=FEATURES))
    others = {
        r"data\.features\.kind\.max_values is 9, but .* made with 3": {
            **FEATURES,
            "kind": FeatureConfig(max_values=9),
        },
        r"data\.features\.day\.encode is index, but .* made without": {
            **FEATURES,
            "day": FeatureConfig(column="shop"),
        },
    }
    for match, features in others.items():
        with pytest.raises(ConfigError, match=match):
            prepare(DataConfig(log=str(tmp_path / "b.parquet"), store=store, append=True, features=features))


def test_columns_that_are_not_there_or_cannot_be_features_are_refused(tmp_path: Path) -> None:
    rows = feature_log(50).with_columns(when=pl.lit(1).cast(pl.Datetime("ms")))
    rows.write_parquet(tmp_path / "log.parquet")
    rows.write_csv(tmp_path / "log.csv")
    rows.write_ndjson(tmp_path / "log.jsonl")
    for suffix in ("parquet", "csv", "jsonl"):
        with pytest.raises(DataError, match=rf"log\.{suffix} .*'colour' \(data\.features\.tint\.column\).*user_id"):
            prepare_one(tmp_path, f"log.{suffix}", tint=FeatureConfig(column="colour"))
    with pytest.raises(DataError, match=r"'when' \(data\.features\.when\) is Datetime.*numbers, booleans or strings"):
        prepare_one(tmp_path, "log.parquet", when=FeatureConfig())
    assert not (tmp_path / "store").exists()


def prepare_one(folder: Path, log: str, **features: FeatureConfig) -> None:
    prepare(DataConfig(log=str(folder / log), store=str(folder / "store"), features=features))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.features.item.type=number", "data.features.item"),
        ("data.features.raw_x.type=number", "data.features.raw_x"),
        ("data.features.a-b.type=number", "data.features.a-b"),
        ("data.features.x.type=colour", "data.features.x.type=colour .* category, number"),
        ("data.features.x.colunm=y", "colunm"),
        ("data.features.x.normalise=standard", "data.features.x.normalise=standard is of numbers"),
        ("data.features.x.max_values=0", "data.features.x.max_values=0"),
    ],
)
def test_a_feature_that_cannot_be_is_one_clear_error(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(["data=log", override])


def test_a_feature_is_made_by_naming_its_keys_with_or_without_a_plus() -> None:
    expected = {"kind": FeatureConfig(column="event", type=CATEGORY), "price": FeatureConfig(type=NUMBER, fill="0")}
    for plus in ("", "+"):
        keys = ["kind.column=event", "kind.type=category", "price.type=number", "price.fill=0"]
        assert load_config([f"{plus}data.features.{key}" for key in keys]).data.features == expected
    for wrong in ("price.fill=cheap", "price.fill=nan", "price.max_values=7"):
        with pytest.raises(ConfigError, match=r"data\.features\.price\."):
            load_config(["data.features.price.type=number", f"data.features.{wrong}"])


def test_a_bucket_hangs_on_the_characters_alone() -> None:
    """BLAKE2b by RFC 7693: its digest of "abc" with 8 bytes, as coreutils give it: ``b2sum -l 64``."""
    assert bucket_of("abc", 2**64) == int.from_bytes(bytes.fromhex("d8bb14d833d59559"), "little")
    counts = Counter(bucket_of(str(k), 8) for k in range(8000))
    assert min(counts.values()) > 850


def test_interrupted_and_continued_it_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_writer, "USERS_PER_ROW_GROUP", 2)
    monkeypatch.setattr(history_writer, "ROW_GROUPS_PER_PART", 3)
    log = write_files(feature_log(600), tmp_path / "log", 3)
    options = {
        "log": log,
        "features": FEATURES,
        "deduplicate": True,
        "columns": ColumnsConfig(event_type="event_type"),
    }
    prepare(DataConfig(store=str(tmp_path / "whole"), **options, **SMALL))
    num_interrupts = 0
    while True:
        try:
            prepare(
                DataConfig(store=str(tmp_path / "store"), **options, **SMALL), Interrupting(2 + num_interrupts % 7)
            )
            break
        except KeyboardInterrupt:
            num_interrupts += 1
    assert num_interrupts > 3
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
