"""An id is a value: spelling, type, format and the cut into files change nothing; what could split a user is said."""

from itertools import product
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from configs.load import load_config
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.id_values import kind_of
from data_pipeline.store.manifest import Manifest

ROWS = [(u, 1600 + (u * k) % 5, 1_600_000_000_000 + k) for k in range(6) for u in range(1, 5)]
WAYS = {
    "plain": lambda rows: rows,
    "blanks": lambda rows: [(f" {u}", f"{i} ", t) for u, i, t in rows],
    "point": lambda rows: [(f"{u}.0", f"{i}.000", t) for u, i, t in rows],
    "sign": lambda rows: [(f"+{u}", f"{i}", t) for u, i, t in rows],
    "exponent": lambda rows: [(f"{u}e0", f"{i:e}", t) for u, i, t in rows],
    "thousands": lambda rows: [(u, f'"{i:,}"', t) for u, i, t in rows],
}
NAMES = ["user_id", "item_id", "timestamp"]


def csv_of(rows: list[tuple[object, ...]], names: list[str] = NAMES) -> str:
    return "\n".join(",".join(map(str, row)) for row in [names, *rows]) + "\n"


def prepared(log: Path, *keys: str) -> tuple[Manifest, list[str]]:
    """The store of ``log`` and what was said meanwhile."""
    said: list[str] = []
    store = log.with_name(f"{log.name}.store")
    config = load_config([f"data.log={log}", f"data.store={store}", *keys]).data
    return prepare(config, ProgressReporter(said.append)), [line for line in said if line.startswith("note:")]


def expected(tmp_path: Path) -> str:
    (tmp_path / "plain.csv").write_text(csv_of(ROWS))
    return prepared(tmp_path / "plain.csv")[0].fingerprint


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_number_is_one_id_however_half_of_the_files_spell_it(way: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "a.csv").write_text(csv_of(ROWS[:11]))
    (log / "b.csv").write_text(csv_of(WAYS[way](ROWS[11:])))
    assert prepared(log)[0].fingerprint == expected(tmp_path)


@pytest.mark.parametrize(
    "types", product([pl.Int8(), pl.Float32(), pl.Decimal(9, 2), pl.String()], repeat=2), ids=str
)
def test_types_of_columns_do_not_change_an_id(types: tuple[pl.DataType, pl.DataType], tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    for k, (dtype, rows) in enumerate(zip(types, (ROWS[:11], ROWS[11:]), strict=True)):
        table = pl.DataFrame(rows, schema=NAMES, orient="row")
        table.with_columns(pl.col("user_id").cast(dtype)).write_parquet(log / f"{k}.parquet")
    assert prepared(log)[0].fingerprint == expected(tmp_path)


def test_one_word_makes_a_column_of_text_in_all_files_whatever_their_types(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    table = pl.DataFrame(ROWS, schema=NAMES, orient="row")
    table.with_columns(pl.col("user_id").cast(pl.Float64)).write_parquet(log / "a.parquet")
    (log / "b.csv").write_text(csv_of([*ROWS, ("ann", 1600, 5)]))
    (log / "c.csv").write_text(csv_of(WAYS["point"](ROWS)))
    manifest, said = prepared(log)
    assert manifest.num_users == 5
    assert pl.read_parquet(f"{log}.store/histories/*.parquet")["raw_user"].to_list() == ["1", "2", "3", "4", "ann"]
    assert not said


def test_texts_that_look_alike_and_stay_apart_are_said(tmp_path: Path) -> None:
    rows = [("\u00e9{1}", "x", 1), ("e\u0301{1}", "x", 2), ("\u00e9", "x", 3), ("b", "x", 4)]
    (tmp_path / "log.csv").write_text(csv_of(rows), encoding="utf-8")
    manifest, [note] = prepared(tmp_path / "log.csv", "data.source.time_unit=s")
    assert manifest.num_users == 4
    assert note.startswith("note: 1 texts in column 'user_id' (data.columns.user) look alike")
    assert "such as 'e\\u0301{1}' and '\\xe9{1}'; they stay different users" in note


def test_two_spellings_that_text_keeps_apart_are_said(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(csv_of([("007", "x", 1), ("7", "x", 2), ("8", "x", 3)]))
    manifest, [said] = prepared(tmp_path / "log.csv")
    assert manifest.num_users == 3
    assert "1 numbers in column 'user_id' (data.columns.user)" in said
    assert "such as 007 and 7" in said


@pytest.mark.parametrize("asked", ["[4,5]", '["4.0","5.00"]', "[4.0,5]", "[4e0, +5]"])
@pytest.mark.parametrize("dtype", [pl.Float64(), pl.Int8(), pl.Decimal(4, 1), pl.String(), "both ways"], ids=str)
def test_a_kind_is_a_value(asked: str, dtype: pl.DataType | str, tmp_path: Path) -> None:
    ratings = [float(k % 5 + 1) for k in range(len(ROWS))]
    table = pl.DataFrame(ROWS, schema=NAMES, orient="row").with_columns(rating=pl.Series(ratings))
    if isinstance(dtype, str):
        texts = [str(r if k % 2 else int(r)) for k, r in enumerate(ratings)]
        table.with_columns(rating=pl.Series(texts)).write_csv(tmp_path / "log.csv")
        log = tmp_path / "log.csv"
    else:
        log = tmp_path / "log.parquet"
        table.with_columns(pl.col("rating").cast(dtype)).write_parquet(log)
    manifest, _ = prepared(log, "data.columns.event_type=rating", f"data.event_types={asked}")
    assert manifest.rows_used == sum(rating > 3 for rating in ratings)


@pytest.mark.parametrize("asked", ["[true]", "[True]", "['true']"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_flag_is_a_kind_in_every_format(asked: str, ending: str, tmp_path: Path) -> None:
    table = pl.DataFrame(ROWS, schema=NAMES, orient="row").with_columns(click=pl.col("user_id") > 2)
    log = tmp_path / f"log.{ending}"
    {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}[ending](log)
    manifest, _ = prepared(log, "data.columns.event_type=click", f"data.event_types={asked}")
    assert manifest.rows_used == len(ROWS) // 2


def test_kinds_that_no_event_has_are_named_beside_those_that_there_are(tmp_path: Path) -> None:
    rows = [(*row, "view" if k % 3 else "buy") for k, row in enumerate(ROWS)]
    (tmp_path / "log.csv").write_text(csv_of(rows, [*NAMES, "kind"]))
    _, [said] = prepared(tmp_path / "log.csv", "data.columns.event_type=kind", "data.event_types=[buy,purchase]")
    assert "no event is of the kind purchase (data.event_types)" in said
    assert "view (16), buy (8)" in said
    with pytest.raises(DataError, match=r"no event is of the kind 1e3, 007 .*'kind' .*holds view \(16\), buy \(8\)"):
        prepared(
            tmp_path / "log.csv", "data.columns.event_type=kind", "data.event_types=[1e3,007]", "data.memory_gib=1"
        )


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_every_spelling_of_a_number_is_one_kind(number: object) -> None:
    plain = kind_of(f"{number:f}")
    assert {kind_of(f"{number:f}0"), kind_of(f" {number:f} "), kind_of(plain)} == {plain}


@given(st.text())
def test_a_kind_is_its_own_kind(text: str) -> None:
    assert kind_of(kind_of(text)) == kind_of(text)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_flags_and_floats_are_features_of_either_type_in_every_format(ending: str, tmp_path: Path) -> None:
    values = pl.Series([1.5, 2.25, 1.5] * 8)
    table = pl.DataFrame(ROWS, schema=NAMES, orient="row").with_columns(price=values, flag=values > 2)
    log = tmp_path / f"log.{ending}"
    {"parquet": table.write_parquet, "csv": table.write_csv, "jsonl": table.write_ndjson}[ending](log)
    kinds = {"a": ("price", "number"), "b": ("price", "category"), "c": ("flag", "number"), "d": ("flag", "category")}
    keys = [
        f"data.features.{name}.{key}"
        for name, pair in kinds.items()
        for key in map("=".join, zip(("column", "type"), pair, strict=True))
    ]
    features = prepared(log, *keys)[0].features
    assert [features[name].num_missing for name in kinds] == [0, 0, 0, 0]
    assert [sorted(features[name].vocabulary) for name in "bd"] == [["1.5", "2.25"], ["false", "true"]]
    assert features["c"].mean == pytest.approx(1 / 3)
