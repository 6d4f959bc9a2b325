"""Test, then train: nothing of a window reaches its score, and a kill at any moment changes no figure."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch.distributed as dist

from data_pipeline.store.manifest import load_manifest
from ranks import run_ranks
from runs import TINY_RUN
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import control_group, groups_freed
from train.evaluate import main as evaluate
from train.follow import run as conductor
from train.follow.__main__ import main as follow
from train.follow.journey import time_text
from train.follow.preflight import main as preflight
from train.follow.table import MEASURED

HOUR = 3_600_000
BEGIN = 1_700_000_000_000 // HOUR * HOUR
WORDS = [
    *(word for word in TINY_RUN if not word.startswith("hardware.num_ranks")),
    *("num_epochs=2", "follow.window=hour", "follow.first_windows=2", "follow.update_every=[1,2]"),
]
NUM_WINDOWS = 5
EMPTY = 3
"""A window without events."""


def shop_log(seed: int = 0) -> pl.DataFrame:
    """Seven hours of 150 events, in each some new users and items; none in one of them."""
    draw = np.random.default_rng(seed)
    hours = []
    for hour in range(NUM_WINDOWS + 2):
        users, items = draw.integers(0, 30 + 3 * hour, 150), draw.integers(0, 20 + 2 * hour, 150)
        times = BEGIN + hour * HOUR + np.sort(draw.integers(0, HOUR, 150))
        hours.append(pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}))
    del hours[EMPTY + 1]
    return pl.concat(hours)


def words_of(folder: Path, log: pl.DataFrame, *, num_ranks: int = 1) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "log.parquet").exists():
        log.write_parquet(folder / "log.parquet")
    own = [f"data.log={folder / 'log.parquet'}", f"run_dir={folder / 'run'}", f"hardware.num_ranks={num_ranks}"]
    return [*own, *WORDS]


def table_of(folder: Path) -> pl.DataFrame:
    """The table without what is measured."""
    table = pl.read_parquet(folder / "run" / "table.parquet")
    return table.drop([name for name in table.columns if name.endswith(MEASURED)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A follow that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert follow(words_of(folder, shop_log())) == 0
    return folder


def test_the_table_has_a_row_a_window_with_quality_baselines_and_cost(whole: Path) -> None:
    table = pl.read_parquet(whole / "run" / "table.parquet")
    log = shop_log()
    hour = (log["timestamp"] - BEGIN) // HOUR
    assert table["window"].to_list() == list(range(1, NUM_WINDOWS + 1))
    assert table["start"].to_list() == [time_text(BEGIN + hour * HOUR) for hour in range(2, NUM_WINDOWS + 2)]
    assert table["events"].to_list() == [(hour == window + 1).sum() for window in range(1, NUM_WINDOWS + 1)]
    known = log.filter(hour < 2)
    for row in table.iter_rows(named=True):
        now = log.filter(hour == row["window"] + 1)
        new = [set(now[name]) - set(known[name]) for name in ("user_id", "item_id")]
        assert [row["new_users"], row["new_items"]] == list(map(len, new))
        assert row["targets"] == len(set(now["user_id"]) & set(known["user_id"]))
        known = pl.concat([known, now])
    is_empty = pl.col("window") == EMPTY
    for name in ("not_updated", "every_1", "every_2", "popular", "recent_popular", "markov"):
        assert table.filter(is_empty)[f"{name}_ndcg@10"].to_list() == [None]
        assert table.filter(~is_empty)[f"{name}_ndcg@10"].is_between(0, 1).all()
    assert table["every_1_updated"].to_list() == [True, True, False, True, True], "nothing new, nothing trained"
    assert table["every_2_updated"].to_list() == [False, True, False, True, False]
    assert (table.filter("every_2_updated")["every_2_device_s"] > 0).all()
    assert table.filter(~pl.col("every_2_updated"))["every_2_usd"].null_count() == 3
    assert pl.read_csv(whole / "run" / "table.csv")["targets"].to_list() == table["targets"].to_list()
    assert "per device-hour" in (whole / "run" / "curve.txt").read_text()


def test_until_its_first_update_a_model_is_the_one_that_is_not_updated(whole: Path) -> None:
    first, second = table_of(whole)[:2].iter_rows(named=True)
    for metric in ("ndcg@10", "ndcg@10_low", "hr@10", "unknown_targets"):
        assert first[f"every_1_{metric}"] == first[f"every_2_{metric}"] == first[f"not_updated_{metric}"]
        assert second[f"every_2_{metric}"] == second[f"not_updated_{metric}"]
    runs = [json.loads(path.read_text())["quality"] for path in sorted((whole / "run" / "rows").iterdir())]
    assert runs[1]["every_1"]["run"] == "every_1-000001"
    assert {each["not_updated"]["run"] for each in runs if each} == {"first"}


@pytest.mark.parametrize("window", [1, 4])
def test_a_row_is_what_evaluate_says_of_the_first_model_on_that_window(whole: Path, window: int) -> None:
    version = window + 1 - (window > EMPTY)
    start = BEGIN + (window + 1) * HOUR
    words = [
        f"run_dir={whole / 'run' / 'models' / 'first'}",
        f"data.store={whole / 'run' / 'store'}",
        f"data.version={version}",
        "data.split=global_time",
        f"data.global_time_valid={time_text(start - 1)}",
        f"data.global_time_test={time_text(start)}",
    ]
    assert evaluate(words) == 0
    found = json.loads((whole / "run" / "models" / "first" / "evaluation.json").read_text())
    row = table_of(whole).row(window - 1, named=True)
    assert row["not_updated_ndcg@10"] == found["test"]["ndcg@10"]
    assert row["not_updated_hr@10"] == found["test"]["hr@10"]
    assert row["targets"] == found["num_test_users"]
    assert row["popular_ndcg@10"] == found["baselines"]["popular"]["ndcg@10"]
    assert row["markov_ndcg@10"] == found["baselines"]["markov"]["ndcg@10"]


@pytest.mark.slow
def test_no_later_event_has_a_part_in_a_row(whole: Path, tmp_path: Path) -> None:
    log = shop_log()
    from_now = BEGIN + 4 * HOUR  # window 3 and later
    other = shop_log(seed=7).filter(pl.col("timestamp") >= from_now)
    changed = pl.concat([log.filter(pl.col("timestamp") < from_now), other])
    # Of a user's events in window 2 the first is the target; those after it may be others too.
    is_of_window_2 = pl.col("timestamp").is_between(BEGIN + 3 * HOUR, from_now, closed="left")
    is_later = is_of_window_2 & (pl.int_range(pl.len()).over("user_id", is_of_window_2) > 0)
    changed = changed.with_columns(item_id=pl.when(is_later).then(0).otherwise("item_id"))
    assert not changed.equals(log)
    assert follow([*words_of(tmp_path, changed), "follow.num_windows=2"]) == 0
    ours, theirs = table_of(whole)[:2], table_of(tmp_path)
    assert theirs[:1].equals(ours[:1])
    scores = [name for name in ours.columns if name != "new_items"]
    assert theirs.select(scores).equals(ours.select(scores))


def killed_at(words: list[str], after: int) -> int:
    """Follow on this rank, whose process ends by SIGKILL before or after its ``after``-th step."""
    left = [after]

    def killing(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            tick()
            found = function(*arguments, **options)
            tick()
            return found

        return counted

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("cut_log", "prepare", "evaluate", "run", "write_row", "write_table"):
        setattr(conductor, name, killing(getattr(conductor, name)))
    DiskCheckpointer.save = killing(DiskCheckpointer.save)  # type: ignore[method-assign]
    return follow(words)


@pytest.mark.slow
def test_a_follow_that_is_killed_again_and_again_gives_the_same_table(whole: Path, tmp_path: Path) -> None:
    words, kills = words_of(tmp_path, shop_log()), [4, 17, 9, 24]
    for after in kills:
        with pytest.raises(RuntimeError, match="SIGKILL"):
            run_ranks(1, killed_at, words, after)
    assert follow(words) == 0
    assert table_of(tmp_path).equals(table_of(whole))


@pytest.mark.slow
def test_two_ranks_give_the_same_table_but_for_the_last_bits(whole: Path, tmp_path: Path) -> None:
    assert run_ranks(2, follow, words_of(tmp_path, shop_log(), num_ranks=2)) == [0, 0]
    ours, theirs = table_of(whole), table_of(tmp_path)
    assert ours.columns == theirs.columns
    exact = [name for name in ours.columns if not name.startswith(("not_updated", "every"))]
    assert ours.select(exact).equals(theirs.select(exact))
    for name in ("not_updated", "every_1", "every_2"):
        # A weight's last bit may swap two neighbours, of some of the targets.
        difference = ours[f"{name}_ndcg@10"] - theirs[f"{name}_ndcg@10"]
        assert difference.abs().max() < 0.02


def open_files_of_rounds(num_rounds: int) -> list[int]:
    """How many files and sockets this rank has open after each of so many windows' groups."""
    found = []
    for _ in range(num_rounds):
        with groups_freed():
            for _ in range(3):
                dist.barrier(group=control_group())
        dist.barrier()
        found.append(len(list(Path("/proc/self/fd").iterdir())))
    return found


@pytest.mark.slow
def test_sockets_do_not_grow_with_the_windows() -> None:
    for counts in run_ranks(2, open_files_of_rounds, 20):
        assert max(counts[5:]) <= max(counts[:5])


@pytest.mark.slow
def test_more_windows_go_on_and_equal_those_of_one_go(whole: Path, tmp_path: Path) -> None:
    words = words_of(tmp_path, shop_log())
    assert follow([*words, "follow.num_windows=1"]) == 0
    assert len(table_of(tmp_path)) == 1
    assert follow([*words, "follow.num_windows=2"]) == 0
    assert table_of(tmp_path).equals(table_of(whole)[:2])


def test_the_store_holds_the_whole_log_in_the_end(whole: Path) -> None:
    manifest = load_manifest(str(whole / "run" / "store"))
    assert manifest.num_events == len(shop_log())
    assert manifest.version == NUM_WINDOWS


@pytest.mark.slow
def test_older_models_and_versions_go_and_the_table_stays_the_same(whole: Path, tmp_path: Path) -> None:
    words = [*words_of(tmp_path, shop_log()), "follow.keep_models=1"]
    assert follow([*words, "follow.num_windows=3"]) == 0
    models, store = tmp_path / "run" / "models", tmp_path / "run" / "store"
    mine = models / "every_1-000002" / "recommendations.parquet"
    mine.write_bytes(b"mine")
    assert follow(words) == 0, "it goes on without what is gone"
    assert table_of(tmp_path).equals(table_of(whole))
    assert {path.name for path in models.iterdir()} == {
        *("first", "every_1-000002", "every_1-000005", "every_2-000004"),
    }, "the first, the newest of each, and one that holds a file of yours"
    assert mine.read_bytes() == b"mine"
    assert (models / "every_1-000002" / "checkpoints" / "final").is_dir()
    versions = {int(path.name) for path in (store / "versions").iterdir()}
    read = {json.loads((each / "identity.json").read_text())["data.version"] for each in models.iterdir()}
    assert versions == read | {NUM_WINDOWS} < set(range(1, NUM_WINDOWS + 1))
    start = BEGIN + (NUM_WINDOWS + 1) * HOUR
    split = ["data.split=global_time", f"data.global_time_valid={time_text(start - 1)}"]
    for name in ("first", "every_2-000004"):
        words = [
            f"run_dir={models / name}",
            f"data.store={store}",
            *split,
            f"data.global_time_test={time_text(start)}",
        ]
        assert evaluate(words) == 0, "what stays is of use"


def test_another_follow_in_the_same_folder_is_refused_by_key_and_a_changed_log_is_told(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(whole, shop_log())
    for key, value in {"follow.window": "day", "model.embedding_dim": "16", "num_epochs": "3", "seed": "1"}.items():
        assert preflight([*words, f"{key}={value}"]) == 2
        assert f" {key}=" in capsys.readouterr().err
    assert preflight([*words, "hardware.usd_per_device_hour=3", "follow.num_windows=9"]) == 0
    assert capsys.readouterr() == ("", "")
    os.utime(whole / "log.parquet", ns=(0, 0))
    assert preflight(words) == 0
    assert "has changed since it was cut" in capsys.readouterr().out


def test_a_row_that_is_damaged_is_told_by_its_file(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = whole / "run" / "rows" / "000002.json"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1", b"2", 1))
    try:
        assert follow(words_of(whole, shop_log())) == 2
        assert str(path) in capsys.readouterr().err
    finally:
        path.write_bytes(content)
