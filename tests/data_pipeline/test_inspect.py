"""`shardrec inspect` tells what is in a store, and says so where it cannot."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.features import FeatureConfig, FeatureType
from data_pipeline.inspect.__main__ import main
from data_pipeline.inspect.picture import figure_of
from data_pipeline.inspect.samples import Titles, sample_histories
from data_pipeline.inspect.summary import (
    Distribution,
    by_doubling,
    moment_of,
    quantiles_of,
    summary_of,
    top_shares_of,
)
from data_pipeline.inspect.text import bars_of
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import load_manifest
from prepared_store import synthetic_store
from stores import write_store

ROOT = Path(__file__).resolve().parents[2]
START = 1_600_000_000_000


def small_store(folder: Path) -> str:
    """Three users of 1, 2 and 9 events; items 0-8, of which 0 and 1 are the popular ones; one row without a user."""
    rows = [(1, 0), (2, 1), (2, 0), *((3, item) for item in range(9)), (None, 5)]
    events = [(user, item, START + 1000 * k) for k, (user, item) in enumerate(rows)]
    table = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    table.write_parquet(folder / "log.parquet")
    store = str(folder / "store")
    prepare(DataConfig(log=str(folder / "log.parquet"), store=store, max_bad_fraction=0.5))
    return store


def test_the_summary_counts_what_the_store_holds(tmp_path: Path) -> None:
    summary = summary_of(small_store(tmp_path))
    assert summary.history_length == Distribution(edges=[1, 2, 4, 8, 16], counts=[1, 1, 0, 1])
    assert summary.item_popularity == Distribution(edges=[1, 2, 4], counts=[7, 2])
    assert summary.top_shares["10.0%"] == 3 / 12
    assert sum(summary.events_over_time.counts) == summary.manifest.num_events == 12


def test_every_user_item_and_event_is_in_one_bin(tmp_path: Path) -> None:
    store = synthetic_store(tmp_path)
    summary, manifest = summary_of(store), load_manifest(store)
    assert sum(summary.history_length.counts) == manifest.num_users
    assert sum(summary.item_popularity.counts) == manifest.num_items
    assert sum(summary.events_over_time.counts) == manifest.num_events
    assert summary.length_quantiles["100%"] == manifest.longest_history


@given(st.lists(st.integers(1, 300), min_size=1))
def test_quantiles_and_bins_are_those_of_the_values(values: list[int]) -> None:
    num_of_value = np.bincount(values)
    expected = np.quantile(values, [0.25, 0.5, 0.9], method="inverted_cdf").tolist()
    assert list(quantiles_of(num_of_value, [0.25, 0.5, 0.9]).values()) == expected
    bins = by_doubling(num_of_value)
    edges = zip(bins.edges[:-1], bins.edges[1:], strict=True)
    assert bins.counts == [sum(low <= value < high for value in values) for low, high in edges]
    assert sum(bins.counts) == len(values)


def test_the_top_share_counts_at_least_one_item() -> None:
    assert top_shares_of(np.array([5, 3, 2]))["0.1%"] == 0.5
    assert top_shares_of(np.ones(1000, np.int64))["10.0%"] == pytest.approx(0.1)


def test_bars_are_as_long_as_their_counts() -> None:
    lines = bars_of(Distribution(edges=[1, 2, 4, 8], counts=[10, 5, 0]), lambda low, high: f"{low}")
    assert [line.count("#") for line in lines] == [40, 20, 0]
    assert [line.split()[:2] for line in lines] == [["1", "10"], ["2", "5"], ["4", "0"]]


def test_histories_have_titles_where_these_are_known(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    titles = pl.DataFrame({"movie": [0, 1], "name": ["Zero", "One"]})
    titles.write_parquet(tmp_path / "titles.parquet")
    titles.write_csv(tmp_path / "titles.csv")
    for name in ("titles.parquet", "titles.csv"):
        known = Titles(path=str(tmp_path / name), item_column="movie", title_column="name")
        samples = sample_histories(store, 3, 4, known)
        assert [sample.raw_user for sample in samples] == ["1", "2", "3"]
        assert [sample.items for sample in samples] == [["Zero"], ["One", "Zero"], ["5", "6", "7", "8"]]
        assert [sample.num_events for sample in samples] == [1, 2, 9]
    assert samples[1].times_ms == [START + 1000, START + 2000]
    assert sample_histories(store, 1, 1)[0].items == ["0"]


def test_histories_have_the_titles_of_the_store(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", [[1, 0], [8]], [[1, 2], [1]])
    path = Path(store) / "items.parquet"
    items = pl.read_parquet(path)
    items.with_columns(title=pl.when(pl.col("raw_item") == 0).then(pl.lit("Zero"))).write_parquet(path)
    assert [sample.items for sample in sample_histories(store, 2, 1)] == [["Zero"], ["8"]]


def test_a_column_of_titles_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    pl.DataFrame({"item_id": [1], "name": ["x"]}).write_csv(tmp_path / "titles.csv")
    with pytest.raises(DataError, match=r"titles\.csv has no column 'title'.*item_id, name.*titles_title"):
        sample_histories(store, 1, 1, Titles(path=str(tmp_path / "titles.csv")))


def test_the_command_prints_the_summary_and_draws_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path)
    assert main([store]) == 0
    told = capsys.readouterr().out
    for part in (load_manifest(store).fingerprint, "quarantined null_user", "7.692%", "2020-09-13 12:26:40", "####"):
        assert part in told
    assert (tmp_path / "store.png").read_bytes().startswith(b"\x89PNG")
    assert max(map(len, told.splitlines())) <= 110


def test_without_matplotlib_it_says_so_and_still_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    store = small_store(tmp_path)
    assert main([store]) == 0
    told = capsys.readouterr().out
    assert "shardrec[plots]" in told
    assert "events of a user" in told
    assert not (tmp_path / "store.png").exists()


def test_json_holds_the_same_and_writes_no_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_store(tmp_path)
    assert main([store, "--json", "users=2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["manifest"]["rows_quarantined"] == {"null_user": 1}
    assert told["history_length"]["counts"] == [1, 1, 0, 1]
    assert [history["raw_user"] for history in told["histories"]] == ["1", "3"]
    assert not (tmp_path / "store.png").exists()


def test_a_store_may_be_named_as_other_verbs_name_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_store(tmp_path)
    told = []
    for words in (
        [store, "version=1"],
        [f"data.store={store}", "version=1"],
        ["--json", f"data.store={store}", "data.version=1"],
    ):
        assert main(["--json", *words]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1] == told[2]


def test_times_beyond_any_calendar_are_shown_as_numbers() -> None:
    assert moment_of(START) == "2020-09-13 12:26:40"
    assert moment_of(2**63 - 1) == "9223372036854775807 ms"


def test_ids_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("\x1b[31muser", "\x1b]0;title\x07", START)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(tmp_path / "a.parquet")
    prepare(DataConfig(log=str(tmp_path / "a.parquet"), store=str(tmp_path / "store")))
    assert main([str(tmp_path / "store"), "png="]) == 0
    told = capsys.readouterr().out
    assert "[31muser" in told
    assert not {"\x1b", "\x07"} & set(told)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "needs one STORE"),
        (["a", "b"], "needs one STORE"),
        (["a", "data.store=b"], "needs one STORE"),
        (["a", "colour=red"], "colour=red is no option of inspect"),
        (["a", "--jsn"], "--jsn is no option of inspect"),
        (["a", "users=many"], "users=many is no whole number"),
        (["/no/such/store"], "is not a store"),
        ([__file__], "is a file, and a store is a folder"),
        ([str(ROOT)], "is not a store"),
    ],
)
def test_what_cannot_be_inspected_is_one_line(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert part in told
    assert told.count("\n") == 1


def test_a_store_without_its_histories_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_store(tmp_path)
    for path in Path(store, "histories").iterdir():
        path.unlink()
    assert main([store]) == 2
    assert "part-00000.parquet is damaged or missing" in capsys.readouterr().err


def test_the_verb_needs_no_torch(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "launch", "inspect", store, "png="]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "fingerprint" in answer.stdout


def test_features_are_told_with_their_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = pl.DataFrame({"user_id": [1] * 4, "item_id": [2] * 4, "timestamp": range(4)})
    log = log.with_columns(kind=pl.Series(["view", "view", "buy\n", None]), price=pl.Series([1.0, 3.0, None, None]))
    log.write_parquet(tmp_path / "log.parquet")
    features = {"kind": FeatureConfig(), "price": FeatureConfig(type=FeatureType.NUMBER)}
    store = str(tmp_path / "store")
    prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=store, features=features))
    assert main([store]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "kind category, 25.0% missing, 4 codes: view, buy\ufffd" in told
    assert "price number, 50.0% missing, mean 2, deviation 0.7071, 1 to 3" in told
    assert main([store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["features"]["kind"]["vocabulary"] == ["view", "buy\n"]


def test_the_long_tail_is_the_share_of_events_of_the_most_popular_items(tmp_path: Path) -> None:
    curve = summary_of(small_store(tmp_path)).long_tail
    assert (curve[0], curve[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert dict(curve)[1 / 9] == summary_of(str(tmp_path / "store")).top_shares["10.0%"]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.pairwise(curve)]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(slopes))


def test_every_panel_of_the_picture_has_a_title_and_says_what_its_axes_count(tmp_path: Path) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    panels = figure_of(summary_of(small_store(tmp_path)), figure).axes
    assert len(panels) == 4
    for panel in panels:
        assert panel.get_title()
        assert "(" in panel.get_xlabel()
        assert panel.get_ylabel()
    assert "(seconds)" in panels[-1].get_xlabel()


def test_a_printed_history_holds_the_features_as_the_log_had_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(1, k, START + 1000 * k, price, kind) for k, (price, kind) in enumerate(PRICES)]
    names = ["user_id", "item_id", "timestamp", "price", "kind"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(tmp_path / "log.parquet")
    features = {"price": FeatureConfig(type=FeatureType.NUMBER), "kind": FeatureConfig(type=FeatureType.CATEGORY)}
    store = str(tmp_path / "store")
    prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=store, features=features))
    (sample,) = sample_histories(store, 1, 8)
    assert sample.features["kind"] == ["a", "b", "", "a"]
    assert [float(price) for price in sample.features["price"]] == pytest.approx([2.5, 10, 2.5, 4])
    assert main([store, "png="]) == 0
    assert "price=2.5  kind=a" in capsys.readouterr().out.replace("kind=a  price=2.5", "price=2.5  kind=a")


PRICES = [(2.5, "a"), (10.0, "b"), (2.5, None), (4.0, "a")]
