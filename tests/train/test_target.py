"""A run ends with the validation that reaches its target, which costs what it says; a higher one lets it go on."""

from pathlib import Path
from typing import Any

import pytest

from configs.atomic_files import read_json
from runs import logged_steps, run_here, tiny_run

FIGURES = ("wall_s", "device_hours", "usd", "kwh", "tokens", "samples")


def summary_of(folder: Path) -> dict[str, Any]:
    return read_json(folder / "summary.json")


@pytest.fixture(scope="module")
def reached(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first validation from step 3 on is good enough; it validates every other step."""
    folder = tmp_path_factory.mktemp("target") / "run"
    words = [*tiny_run(store, folder, 9), "train.target=hr@7:1e-9", "evaluation.first_step=3"]
    assert run_here(words) == 0
    return folder


def test_a_run_ends_with_the_validation_that_reaches_its_target(reached: Path):
    summary = summary_of(reached)
    assert (summary["steps"], summary["ended_by"]) == (4, "train.target")
    assert [row["step"] for row in logged_steps(reached)] == [1, 2, 3, 4]
    target = summary["target"]
    assert target["is_reached"]
    assert (target["metric"], target["target"], target["step"]) == ("hr@7", 1e-9, 4)
    assert target["value"] >= target["target"]
    assert 0 < target["samples"] <= 4 * 64, "of four steps"
    assert target["tokens"] == summary["throughput"]["tokens"]
    assert sum(target["phases_s"].values()) == pytest.approx(target["device_hours"] * 3600, rel=0.02, abs=0.05)
    assert target["device_hours"] < summary["cost"]["device_hours"], "the test users are ranked after it"


def test_each_better_validation_says_what_it_has_cost(reached: Path):
    found = summary_of(reached)["time_to_quality"]
    assert [each["step"] for each in found] == [4]
    assert found[0].keys() == {"step", "metric", "value", *FIGURES}


def test_a_run_that_has_reached_its_target_goes_on_to_a_higher_one(
    reached: Path, store: str, capsys: pytest.CaptureFixture[str]
):
    words = [*tiny_run(store, reached, 9), "evaluation.first_step=3"]
    assert run_here([*words, "train.target=hr@7:1e-9"]) == 0
    assert (
        "summary.json is there; train.target=hr@7:1e-9: the validation of step 4 has hr@7" in capsys.readouterr().out
    )
    assert run_here([*words, "train.target=hr@7:1"]) == 0
    summary = summary_of(reached)
    assert (summary["steps"], summary["ended_by"]) == (9, "num_steps")
    assert summary["target"] == {"metric": "hr@7", "target": 1.0, "is_reached": False}
    bests = summary["time_to_quality"]
    values, hours = [each["value"] for each in bests], [each["device_hours"] for each in bests]
    assert values == sorted(set(values))
    assert hours == sorted(set(hours))
    assert bests[-1]["step"] == summary["best_step"]


def test_a_run_without_a_target_says_nothing_of_one(store: str, tmp_path: Path):
    assert run_here(tiny_run(store, tmp_path / "run", 2)) == 0
    assert "target" not in summary_of(tmp_path / "run")
