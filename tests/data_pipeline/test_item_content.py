"""Item content in a store: the same from every format, joined by raw id, every row accounted for, kept by appends."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from logs import files_of, random_log

from configs.errors import ConfigError, DataError
from configs.load import load_config
from configs.schema import DataConfig
from configs.schema.item_features import Ngrams
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import identity_digests, item_content, item_table, load_manifest
from data_pipeline.store.text_ngrams import ngram_buckets
from train.preflight import check

KEYS = [
    "data.item_features.kind.type=category",
    "data.item_features.tags.type=categories",
    "data.item_features.price.type=number",
    "data.item_features.price.normalise=min_max",
    "data.item_features.title.type=text",
    "data.item_features.vector.type=vector",
]
ITEMS = pl.DataFrame(
    {
        "item_id": [*range(25), 3, 99, None],
        "kind": ["a", "b", "", "a", *["c"] * 24],
        "tags": [["x", "y"], [], *[["y"]] * 26],
        "price": [1.0, None, 3.0, *[2.0] * 25],
        "title": ["Red wine", None, "red  WINE!", *["white wine"] * 25],
        "vector": [[3.0, 4.0], None, *[[1.0, 0.0]] * 26],
    }
)
"""Of the 30 items of a random log; a repeated item, one that the log does not have, and a row without one."""


def write_items(folder: Path, suffix: str, rows: pl.DataFrame = ITEMS) -> Path:
    """``rows`` as a file of the format ``suffix``."""
    path = folder / f"catalogue.{suffix}"
    as_text = rows.with_columns(
        tags=pl.col("tags").list.join("|"),
        vector=pl.Series([None if each is None else json.dumps(each) for each in rows["vector"].to_list()]),
    )
    {"parquet": rows.write_parquet, "csv": as_text.write_csv, "jsonl": rows.write_ndjson}[suffix](path)
    return path


def config_of(folder: Path, items: Path | str, *more: str, store: str = "store") -> DataConfig:
    """Of the log and the store in ``folder``."""
    words = [f"data.log={folder}/log.parquet", f"data.store={folder}/{store}", f"data.items={items}", *KEYS, *more]
    return load_config(words).data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a log in it."""
    random_log(900).write_parquet(tmp_path / "log.parquet")
    return tmp_path


def contents_of(store: Path) -> dict[int, dict[str, Any]]:
    """By raw item, its encoded features."""
    manifest = load_manifest(str(store))
    assert manifest.item_content is not None
    columns = item_content(str(store), manifest, list(manifest.item_content.features))
    raw = item_table(str(store), manifest, ["raw_item"])["raw_item"].to_pylist()
    return {
        item: {
            name: (
                column.values[k].tolist()
                if column.offsets is None
                else column.values[column.offsets[k] : column.offsets[k + 1]].tolist()
            )
            for name, column in columns.items()
        }
        for k, item in enumerate(raw)
    }


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_content_is_joined_by_raw_id_from_every_format(folder: Path, suffix: str) -> None:
    manifest = prepare(config_of(folder, write_items(folder, suffix)))
    content, found = manifest.item_content, contents_of(folder / "store")
    assert content is not None
    rows = dict(content.rows)
    assert rows.pop("read") == sum(rows.values()), "every row is accounted for"
    assert (rows["repeated_item"], rows["unknown_item"], rows["without_item"]) == (1, 1, 1)
    assert content.num_items_without == len(found) - 25
    vocabulary = content.features["kind"].values
    assert vocabulary is not None
    assert vocabulary.vocabulary == ["c", "a", "b"]
    assert found[0]["kind"] == found[3]["kind"] == 3, "of a repeated item the first row counts"
    assert [found[item]["price"] for item in (0, 2)] == [0.0, 1.0]
    assert found[0]["title"] == found[2]["title"] == ngram_buckets("red wine", Ngrams.WORDS, 2, 4096)
    assert found[1] == {**found[29], "kind": 4}, "a missing value is as that of an item without a row"
    assert (found[29]["tags"], found[29]["title"], found[29]["vector"], found[29]["kind"]) == ([], [], [0.0, 0.0], 0)
    assert len(found[0]["tags"]) == 2
    np.testing.assert_allclose(np.array(found[0]["vector"]) / found[4]["vector"][0], [3, 4], rtol=1e-6)


def test_the_same_content_has_the_same_digest_and_other_content_another(folder: Path) -> None:
    digests = {}
    for name in ("parquet", "csv", "jsonl"):
        manifest = prepare(config_of(folder, write_items(folder, name), store=name))
        digests[name] = identity_digests(manifest)["data.item_content"]
    assert len(set(digests.values())) == 1
    other = ITEMS.with_columns(title=pl.lit("other"))
    manifest = prepare(config_of(folder, write_items(folder, "parquet", other), store="csv"))
    assert manifest.version == 2, "another file of items makes the next version"
    assert identity_digests(manifest)["data.item_content"] != digests["csv"]


def test_a_store_without_items_does_not_speak_of_content(folder: Path) -> None:
    prepare(DataConfig(log=f"{folder}/log.parquet", store=f"{folder}/store"))
    assert not any(b"item_content" in text or b"items_file" in text for text in files_of(folder / "store").values())
    assert "data.item_content" not in identity_digests(load_manifest(f"{folder}/store"))


def test_broken_rows_are_counted_and_too_many_end_the_command(folder: Path) -> None:
    broken = ITEMS.with_columns(price=pl.when(pl.col("item_id") == 5).then(1e38).otherwise("price"))
    items = write_items(folder, "csv", broken)
    with pytest.raises(DataError, match=r"price_out_of_range 1\), more than data.max_bad_fraction=0.01"):
        prepare(config_of(folder, items))
    manifest = prepare(config_of(folder, items, "data.max_bad_fraction=0.1"))
    assert manifest.item_content is not None
    assert manifest.item_content.rows["broken_price_out_of_range"] == 1
    assert contents_of(folder / "store")[5] == contents_of(folder / "store")[29]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["data.items=''"], r"data\.items is empty"),
        (["data.items=none.csv"], "data.items=none.csv is no file"),
        (["data.items_column=asin"], r"no column 'asin'.*set data\.items_column"),
        (["data.item_features.title.column=name"], r"no column 'name'.*set data\.item_features\.title\.column"),
        (["data.item_features.tags.type=text"], r"data\.item_features\.tags\.type=text takes one plain value"),
        (["data.item_features.title.type=vector"], "title_not_a_vector"),
        (["data.item_features.title.fill=x"], r"data\.item_features\.title\.fill=x is of category, number"),
        (["data.item_features.title.max_ngram=0"], r"data\.item_features\.title\.max_ngram=0"),
    ],
)
def test_keys_and_columns_that_do_not_fit_are_named(folder: Path, words: list[str], match: str) -> None:
    items = write_items(folder, "parquet")
    with pytest.raises((ConfigError, DataError), match=match) as error:
        prepare(config_of(folder, items, *words))
    assert "\n" not in str(error.value)


def test_an_items_file_of_which_nothing_is_asked_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="nothing of it is asked for"):
        prepare(
            DataConfig(log=f"{folder}/log.parquet", store=f"{folder}/store", items=str(write_items(folder, "csv")))
        )


def test_an_append_encodes_new_items_as_the_store_does(folder: Path) -> None:
    log = random_log(900)
    log.filter(pl.col("item_id") < 20).write_parquet(folder / "log.parquet")
    items = write_items(folder, "parquet", ITEMS.filter(pl.col("item_id") < 20))
    first = prepare(config_of(folder, items))
    log.filter(pl.col("item_id") >= 20).write_parquet(folder / "more.parquet")
    write_items(
        folder,
        "parquet",
        ITEMS.with_columns(kind=pl.when(pl.col("item_id") == 24).then(pl.lit("new")).otherwise("kind")),
    )
    more = DataConfig(log=f"{folder}/more.parquet", store=f"{folder}/store", append=True)
    second = prepare(more)
    assert first.item_content is not None
    assert second.item_content is not None
    for name, feature in first.item_content.features.items():
        now = replace(second.item_content.features[name], num_missing=feature.num_missing)
        assert now == feature
    found = contents_of(folder / "store")
    assert found[23] == found[4]
    assert found[24]["kind"] == 1, "a value that the store did not have is another one"
    assert load_manifest(f"{folder}/store", 1).item_content == first.item_content


def test_training_is_told_when_the_store_was_made_with_other_content(folder: Path) -> None:
    prepare(config_of(folder, write_items(folder, "parquet")))
    words = [f"data.store={folder}/store", f"run_dir={folder}/run"]
    check(load_config([*words, "model.item_features=[title,kind]"]), words)
    with pytest.raises(ConfigError, match=r"model\.item_features=\['size'\].*has no item feature 'size'"):
        check(load_config([*words, "model.item_features=[size]"]), words)
    other = [*words, "data.items=other.csv"]
    with pytest.raises(ConfigError, match=r"was prepared with data\.items="):
        check(load_config(other), other)


def test_ngrams_of_a_text_do_not_depend_on_its_spelling() -> None:
    words = [ngram_buckets(text, Ngrams.WORDS, 2, 10**6) for text in ("Über Cool", "über, COOL!", "ｕ\u0308ber cool")]
    assert words[0] == words[1] == words[2]
    assert len(words[0]) == 3
    assert ngram_buckets("...", Ngrams.WORDS, 2, 10) == []
    assert len(ngram_buckets("日本語", Ngrams.CHARACTERS, 2, 10**6)) == 5
