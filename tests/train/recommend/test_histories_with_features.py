"""Histories of a file with the features of their events: as if the store held them."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from feature_log import FEATURES, raw_events, run_with_features

from configs.errors import ConfigError, DataError
from ranks import run_ranks
from train.evaluation.preflight import evaluated_run
from train.recommend.run import recommend


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_with_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def of_store(run_dir: Path) -> pl.DataFrame:
    """The rows for every user of the store."""
    return rows_of(run_dir, run_dir.parent / "of_store.parquet")


def recommend_here(overrides: list[str]) -> None:
    recommend(evaluated_run(overrides))


def rows_of(run_dir: Path, output: Path, *overrides: str) -> pl.DataFrame:
    recommend_here([f"run_dir={run_dir}", f"recommend.output={output}", *overrides])
    return pl.read_parquet(output)


def events_of(run_dir: Path) -> pl.DataFrame:
    return raw_events(str(run_dir.parent / "store"))


def as_events(events: pl.DataFrame, path: Path) -> None:
    events.write_parquet(path)


def as_csv(events: pl.DataFrame, path: Path) -> None:
    events.with_columns(pl.col("kind").str.strip_chars()).write_csv(path)


def as_lists(events: pl.DataFrame, path: Path) -> None:
    events.group_by("user_id", maintain_order=True).agg(pl.exclude("user_id")).write_parquet(path)


def as_json_events(events: pl.DataFrame, path: Path) -> None:
    events.write_ndjson(path)


def as_json_lists(events: pl.DataFrame, path: Path) -> None:
    events.group_by("user_id", maintain_order=True).agg(pl.exclude("user_id")).write_ndjson(path)


def as_slice_of_the_log(events: pl.DataFrame, path: Path) -> None:
    events.rename({"kind": "event_type"}).write_parquet(path)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (as_events, "events.parquet"),
        (as_lists, "lists.parquet"),
        (as_json_events, "events.jsonl"),
        (as_json_lists, "lists.jsonl"),
        (as_slice_of_the_log, "log.parquet"),
    ],
)
def test_histories_with_their_raw_features_get_the_rows_of_the_same_users_of_the_store(
    run_dir: Path,
    of_store: pl.DataFrame,
    tmp_path: Path,
    write: Callable[[pl.DataFrame, Path], None],
    name: str,
) -> None:
    write(events_of(run_dir), tmp_path / name)
    of_file = rows_of(run_dir, tmp_path / "file.parquet", f"recommend.histories={tmp_path / name}")
    assert of_file.equals(of_store)
    assert set(of_store["source"]) == {"model"}


def test_events_of_unknown_items_are_left_out_with_their_features(
    run_dir: Path, of_store: pl.DataFrame, tmp_path: Path
) -> None:
    events = events_of(run_dir)
    unknown = events.with_columns(
        item_id=pl.lit(7, pl.Int64), kind=pl.lit("buy"), price=pl.lit(99.0), shop=pl.lit("x")
    )
    as_events(pl.concat([unknown, events, unknown]), tmp_path / "events.parquet")
    words = [f"recommend.histories={tmp_path}/events.parquet", "recommend.unknown_ids=skip"]
    assert rows_of(run_dir, tmp_path / "rows.parquet", *words).equals(of_store)


def test_a_csv_file_gives_the_rows_of_the_same_texts(run_dir: Path, tmp_path: Path) -> None:
    """A delimited file has no blanks around its values: both files are without them."""
    events = events_of(run_dir).with_columns(pl.col("kind").str.strip_chars())
    as_csv(events, tmp_path / "events.csv")
    as_events(events, tmp_path / "events.parquet")
    found = [
        rows_of(run_dir, tmp_path / f"of_{name}.parquet", f"recommend.histories={tmp_path / name}")
        for name in ("events.csv", "events.parquet")
    ]
    assert found[0].equals(found[1])


@pytest.mark.slow
def test_two_ranks_write_the_rows_of_one(run_dir: Path, tmp_path: Path) -> None:
    as_events(events_of(run_dir), tmp_path / "events.parquet")
    contents = []
    for num_ranks in (1, 2):
        output = tmp_path / f"of_{num_ranks}.parquet"
        words = [f"run_dir={run_dir}", f"recommend.output={output}", "recommend.batch_size=16"]
        run_ranks(num_ranks, recommend_here, [*words, f"recommend.histories={tmp_path}/events.parquet"])
        contents.append(output.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("feature", FEATURES)
def test_each_feature_counts(run_dir: Path, of_store: pl.DataFrame, tmp_path: Path, feature: str) -> None:
    events = events_of(run_dir).with_columns(pl.col(feature).shuffle(seed=1))
    as_events(events, tmp_path / "shuffled.parquet")
    found = rows_of(run_dir, tmp_path / "rows.parquet", f"recommend.histories={tmp_path}/shuffled.parquet")
    assert not found.equals(of_store)


def test_a_value_that_training_never_saw_counts_as_other(run_dir: Path, tmp_path: Path) -> None:
    """The store's rare kind is "other" too: both words mean the same to the model."""
    events = events_of(run_dir)
    as_events(events.with_columns(kind=pl.lit("return")), tmp_path / "rare.parquet")
    as_events(events.with_columns(kind=pl.lit("never seen")), tmp_path / "new.parquet")
    found = [
        rows_of(run_dir, tmp_path / f"of_{name}.parquet", f"recommend.histories={tmp_path}/{name}.parquet")
        for name in ("rare", "new")
    ]
    assert found[0].equals(found[1])


def without_a_column(events: pl.DataFrame) -> pl.DataFrame:
    return events.drop("kind")


def with_words_for_numbers(events: pl.DataFrame) -> pl.DataFrame:
    price = pl.Series(["1.5", "cheap", *["2"] * (len(events) - 2)])
    return events.with_columns(price.alias("price"))


def with_dates_for_numbers(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(price=pl.lit("2024-01-01").str.to_date())


def with_a_number_that_is_too_large(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(price=pl.lit(1e38))


def with_a_text_that_is_too_long(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(shop=pl.lit("s" * 2000))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_a_column, "has no column 'kind' or 'event_type' for the feature kind"),
        (with_words_for_numbers, r"in 1 rows column 'price' \(the feature price\) is no number, first in row 2"),
        (with_dates_for_numbers, r"column 'price' \(data\.features\.price\) is .*takes numbers, booleans"),
        (with_a_number_that_is_too_large, r"column 'price' \(the feature price\) is no number of at most 1e\+37"),
        (with_a_text_that_is_too_long, r"column 'shop' \(the feature shop\) has more than 1,024 bytes"),
    ],
)
def test_a_wrong_file_is_one_error_that_names_the_column(
    run_dir: Path, tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], told: str
) -> None:
    as_events(change(events_of(run_dir)), tmp_path / "events.parquet")
    with pytest.raises((ConfigError, DataError), match=rf"recommend\.histories=.*events\.parquet.*{told}"):
        rows_of(run_dir, tmp_path / "rows.parquet", f"recommend.histories={tmp_path}/events.parquet")
    assert not (tmp_path / "rows.parquet").exists()


def test_a_missing_column_of_a_csv_file_is_told_with_those_that_are_there(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("user_id,item_id,kind,shop,price\nz,10,view,1,2\n")
    with pytest.raises(
        (ConfigError, DataError), match=r"no column 'stars'.*its columns are user_id, item_id, kind, shop, price;"
    ):
        rows_of(run_dir, tmp_path / "rows.parquet", f"recommend.histories={tmp_path}/few.csv")


def test_json_lines_may_be_long_and_need_not_have_every_key_in_the_first_line(run_dir: Path, tmp_path: Path) -> None:
    events = events_of(run_dir)
    many = pl.concat([events.filter(pl.col("user_id") == events["user_id"][0])] * 300)
    as_json_lists(many.drop("timestamp"), tmp_path / "long.jsonl")
    as_events(many.drop("timestamp"), tmp_path / "long.parquet")
    assert (tmp_path / "long.jsonl").stat().st_size > 2**17
    found = [
        rows_of(run_dir, tmp_path / f"of_{name}.parquet", f"recommend.histories={tmp_path}/{name}")
        for name in ("long.jsonl", "long.parquet")
    ]
    assert found[0].equals(found[1])
    second = '"kind": "view", "shop": 1, "price": 2, "stars": 1'
    (tmp_path / "sparse.jsonl").write_text(
        f'{{"user_id": "a", "item_id": 10}}\n{{"user_id": "b", "item_id": 20, {second}}}\n'
    )
    rows = rows_of(run_dir, tmp_path / "sparse.parquet", f"recommend.histories={tmp_path}/sparse.jsonl")
    assert set(rows["user_id"]) == {"a", "b"}
