"""``sweep.parquet``: a row a run, whatever has become of it; seeds are one configuration."""

from pathlib import Path

import polars as pl
import pytest

from benchmarks.runs.seeds import configurations_of
from benchmarks.sweep.__main__ import main
from benchmarks.sweep.index import FAILED, Index
from benchmarks.sweep.jobs import plan_of
from benchmarks.sweep.options import options_of
from benchmarks.sweep.sweep import is_trained
from configs.errors import ConfigError
from recorded import write_run

SEEDS = {0: 0.10, 1: 0.12, 2: 0.14}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a sweep of one loss and three seeds; a fourth run is there that has not ended."""
    for seed, ndcg in SEEDS.items():
        write_run(tmp_path / f"{seed}", [f"seed={seed}"], ndcg=ndcg)
    write_run(tmp_path / "3", ["seed=3"])
    (tmp_path / "3" / "summary.json").unlink()
    return tmp_path


def test_runs_of_a_multirun_are_indexed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"sweep_dir={folder}"]) == 0
    table = pl.read_parquet(folder / "sweep.parquet")
    assert table["run"].to_list() == ["0", "1", "2", "3"]
    assert table["state"].to_list() == ["ended"] * 3 + ["unfinished"]
    assert table["seed"].to_list() == [0, 1, 2, None]
    assert table["ndcg@10"].to_list() == [*SEEDS.values(), None]
    assert table["ndcg@10 low"].drop_nulls().to_list() == [pytest.approx(value - 0.01) for value in SEEDS.values()]
    printed = capsys.readouterr()
    assert "0.1200 ± 0.0200" in printed.out
    assert "unfinished: 3: " in printed.err


def test_a_run_that_waits_or_failed_has_a_row_with_its_values(folder: Path) -> None:
    plan = plan_of(options_of(["loss=bce,gbce", "seed=7", f"sweep_dir={folder}"]))
    index = Index(folder, plan.jobs)
    index.fail("loss=bce", FAILED, "ConfigError: a reason")
    rows = {row["run"]: row for row in pl.read_parquet(index.write()).to_dicts()}
    assert (rows["loss=bce"]["state"], rows["loss=bce"]["why"]) == ("failed", "ConfigError: a reason")
    assert (rows["loss=gbce"]["state"], rows["loss=gbce"]["loss"], rows["loss=gbce"]["seed"]) == (
        "waiting",
        "gbce",
        7,
    )
    assert rows["0"]["loss"] == "full_softmax"


def test_values_of_several_types_are_written_as_they_are_typed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", ["follow.update_every=[1,7]", "data.columns.event_type=kind", "data.event_types=[buy]"])
    write_run(tmp_path / "b", ["optimizer.lr=0.5", "train.refit=true"])
    table = pl.read_parquet(Index(tmp_path).write())
    assert table["optimizer.lr"].to_list() == [0.001, 0.5]
    assert table["train.refit"].to_list() == [False, True]
    assert table["data.event_types"].to_list() == ["['buy']", "[]"]


def test_a_damaged_run_does_not_hide_the_others(folder: Path) -> None:
    (folder / "1" / "summary.json").write_text("{}")
    index = Index(folder)
    assert index.states["1"][0] == "unreadable"
    assert [run.name for run in index.ended()] == ["0", "2"]


def test_a_file_of_somebody_else_is_not_overwritten(folder: Path) -> None:
    for content in (b"mine", b""):
        (folder / "sweep.parquet").write_bytes(content)
        with pytest.raises(ConfigError, match="was not written by a sweep"):
            Index(folder)
        assert (folder / "sweep.parquet").read_bytes() == content


def test_seeds_are_one_configuration_with_mean_and_spread(folder: Path) -> None:
    write_run(folder / "4", ["loss=bce", "seed=1"], ndcg=0.3)
    found = {each.label: each for each in configurations_of(Index(folder).ended())}
    assert set(found) == {"full_softmax", "bce"}

    def ndcg(run: object) -> float:
        return run.quality["test"]["ndcg@10"]  # type: ignore[attr-defined]

    assert found["full_softmax"].mean(ndcg) == pytest.approx(0.12)
    assert found["full_softmax"].spread(ndcg) == pytest.approx(0.02)
    assert found["bce"].spread(ndcg) is None


def test_the_same_run_twice_is_no_spread(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name)
    assert [len(each.runs) for each in configurations_of(Index(tmp_path).ended())] == [1, 1]


def test_what_has_ended_is_not_trained_again_but_longer(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / f"seed={seed}", [f"seed={seed}", "num_epochs=3"])
    for words, has_ended in ((["num_epochs=3"], True), (["num_epochs=4"], False), (["num_steps=9"], False)):
        plan = plan_of(options_of(["seed=1,2", *words, f"sweep_dir={tmp_path}"]))
        index = Index(tmp_path, plan.jobs)
        assert [is_trained(job, index) for job in plan.jobs] == [has_ended] * 2
