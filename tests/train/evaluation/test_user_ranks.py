"""``ranks.parquet``: every ranked target once, by raw ids, the same on any number of ranks and after any restart."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from configs.errors import DataError
from prepared_store import synthetic_store
from ranks import run_ranks
from runs import drop_after, run_here, tiny_run
from train.evaluate import evaluate
from train.evaluation import user_ranks
from train.evaluation.metrics import quality_of
from train.evaluation.preflight import evaluated_run
from train.evaluation.user_ranks import RANKS, RANKS_OF_EVALUATION, read_user_ranks

NUM_STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 150 users with its store and log."""
    folder = tmp_path_factory.mktemp("ranks")
    synthetic_store(folder)
    assert run_here(words_of(folder)) == 0
    return folder


def words_of(folder: Path) -> list[str]:
    """What the run is trained with."""
    return [*tiny_run(str(folder / "store"), folder / "run", NUM_STEPS), "checkpoint.keep_last=9"]


def rows(path: Path, subset: str) -> pl.DataFrame:
    """The rows of a subset."""
    found = pl.from_arrow(read_user_ranks(path).of(subset))
    assert isinstance(found, pl.DataFrame)
    return found


def evaluate_here(words: list[str]) -> None:
    """``shardrec evaluate`` on the ranks that are there."""
    evaluate(evaluated_run(words), {"run_dir"})


def test_rows_are_the_targets_of_the_log_and_give_the_figures_of_the_summary(folder: Path) -> None:
    log = pl.read_parquet(folder / "log.parquet").sort("timestamp", maintain_order=True)
    summary = json.loads((folder / "run" / "summary.json").read_text())
    for subset, from_end in (("valid", 2), ("test", 1)):
        found = rows(folder / "run" / RANKS, subset)
        assert quality_of(found["rank"].to_numpy()) == pytest.approx(summary["quality"][subset], abs=1e-12)
        histories = dict(log.group_by("user_id").agg("item_id").iter_rows())
        expected = {user: items for user, items in histories.items() if len(items) >= 3}
        assert sorted(found["user"].to_list()) == sorted(expected)
        for row in found.iter_rows(named=True):
            items = expected[row["user"]]
            before = items[: len(items) - from_end]
            assert row["item"] == items[-from_end]
            assert row["history_length"] == len(before)
            assert row["is_seen"] == (row["item"] in before)


@pytest.mark.parametrize("world_size", [1, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 4))])
def test_an_evaluation_writes_the_same_ranks_on_any_number_of_ranks(folder: Path, world_size: int) -> None:
    run_ranks(world_size, evaluate_here, [f"run_dir={folder}/run", "evaluation.batch_size=37"])
    of_run, found = rows(folder / "run" / RANKS, "test"), rows(folder / "run" / RANKS_OF_EVALUATION, "test")
    integers = [name for name in found.columns if name != "score"]
    assert found.select(integers).equals(of_run.select(integers))
    np.testing.assert_allclose(found["score"], of_run["score"], rtol=1e-4, atol=1e-6)
    protocols = [read_user_ranks(folder / "run" / name).protocol for name in (RANKS, RANKS_OF_EVALUATION)]
    assert protocols[0] == protocols[1]


def test_a_run_that_was_interrupted_after_its_best_validation_keeps_the_same_ranks(folder: Path) -> None:
    whole = pq.read_table(folder / "run" / RANKS)
    (folder / "run" / RANKS).unlink()
    drop_after(folder / "run", NUM_STEPS)  # all steps are there: nothing is trained or validated again
    assert run_here(words_of(folder)) == 0
    assert pq.read_table(folder / "run" / RANKS).equals(whole)


def test_ranks_are_written_some_rows_at_a_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_ranks, "ROW_GROUP", 64)
    run_here([*words_of(folder), f"run_dir={tmp_path / 'run'}"])
    assert pq.ParquetFile(tmp_path / "run" / RANKS).num_row_groups > 4
    assert pq.read_table(tmp_path / "run" / RANKS).equals(pq.read_table(folder / "run" / RANKS))


def test_a_file_that_is_damaged_or_another_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    content = (folder / "run" / RANKS).read_bytes()
    cases = [content[: len(content) // 2], b"", (folder / "store" / "items.parquet").read_bytes()]
    for number, damaged in enumerate(cases):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{number}.parquet is damaged, or not a file of ranks"):
            read_user_ranks(path)
