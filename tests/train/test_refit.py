"""The final fit: what it is trained on, that a stop changes nothing of it, and whose figures are whose."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from configs.atomic_files import read_json
from configs.errors import REQUEUE_EXIT_CODE, ConfigError
from configs.load import load_config
from runs import logged_steps, run_here, tiny_run
from train.evaluate import main as evaluate
from train.evaluation.preflight import main as evaluation_preflight
from train.objective import Objective

STEPS = 4


def weights_in(run: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint of one rank."""
    return load_file(run / "checkpoints" / name / "rank-00000.safetensors")


def assert_same_model(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Every tensor of both is equal to the bit."""
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def refitted(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a final fit on training and validation events."""
    run = tmp_path_factory.mktemp("refit") / "run"
    assert run_here([*tiny_run(store, run, STEPS), "train.refit=true"]) == 0
    return run


def test_the_summary_says_which_figures_belong_to_which_model(refitted: Path):
    summary = read_json(refitted / "summary.json")
    final = summary["final_model"]
    assert (final["trained_on"], final["selected_step"]) == ("validation", summary["best_step"])
    assert final["steps"] == summary["best_step"], "an epoch has as many users as before"
    assert final["quality"]["test"]["ndcg@10"] != summary["quality"]["test"]["ndcg@10"]
    assert final["device_s"] > 0
    assert summary["cost"]["device_hours"] > final["cost"]["device_hours"]
    assert [row["step"] for row in logged_steps(refitted / "refit")] == list(range(1, final["steps"] + 1))
    assert not list((refitted / "checkpoints").glob("refit-step-*")), "they were for a restart alone"


def test_a_finished_run_with_a_final_fit_is_shown_and_left(
    refitted: Path, store: str, capsys: pytest.CaptureFixture[str]
):
    before = {path: path.read_bytes() for path in refitted.glob("checkpoints/*/*")}
    summary = (refitted / "summary.json").read_bytes()
    assert run_here([*tiny_run(store, refitted, STEPS), "train.refit=true"]) == 0
    assert "final model" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in refitted.glob("checkpoints/*/*")} == before
    assert (refitted / "summary.json").read_bytes() == summary


def test_evaluate_ranks_either_model_and_says_which(refitted: Path):
    summary = read_json(refitted / "summary.json")
    expected = {"final": summary["final_model"]["quality"]["test"], "auto": summary["quality"]["test"]}
    for use, quality in expected.items():
        assert evaluate([f"run_dir={refitted}", f"checkpoint.use={use}"]) == 0
        found = read_json(refitted / "evaluation.json")
        assert found["test"] == quality
        assert found["checkpoint"] == {"final": "final", "auto": "best"}[use]


def test_a_stop_in_the_final_fit_changes_nothing_of_it(
    refitted: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real, calls = Objective.__call__, list[int]()

    def signalled(self: Objective, model: Any, batch: Any, at: int) -> Any:
        calls.append(at)
        if len(calls) == STEPS + 1:  # the first step of the final fit
            os.kill(os.getpid(), signal.SIGUSR1)
        return real(self, model, batch, at)

    words = [*tiny_run(store, tmp_path / "run", STEPS), "train.refit=true"]
    with monkeypatch.context() as patched:
        patched.setattr(Objective, "__call__", signalled)
        assert run_here(words) == REQUEUE_EXIT_CODE
    assert "final_model" not in read_json(tmp_path / "run" / "summary.json")
    assert (tmp_path / "run" / "checkpoints" / "refit-step-00000001" / "progress.json").is_file()
    with monkeypatch.context() as patched:
        patched.setattr(Objective, "__call__", counting := _counting(real))
        assert run_here(words) == 0
    num_refit = read_json(refitted / "summary.json")["final_model"]["steps"]
    assert counting.steps == list(range(1, num_refit)), "nothing is trained twice"
    assert_same_model(weights_in(tmp_path / "run", "final"), weights_in(refitted, "final"))
    ours, theirs = (read_json(each / "summary.json") for each in (tmp_path / "run", refitted))
    assert ours["final_model"]["quality"] == theirs["final_model"]["quality"]


def _counting(real: Any) -> Any:
    def counted(self: Objective, model: Any, batch: Any, at: int) -> Any:
        counted.steps.append(at)
        return real(self, model, batch, at)

    counted.steps = []
    return counted


def test_a_final_fit_on_everything_is_a_run_without_held_out_events(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    short = ["num_steps=2", "train.refit=true", "train.refit_on=everything"]  # the last step is the best
    assert run_here([*tiny_run(store, tmp_path / "refit", 2), *short]) == 0
    assert run_here([*tiny_run(store, tmp_path / "none", 2), "data.split=none"]) == 0
    assert_same_model(weights_in(tmp_path / "refit", "final"), weights_in(tmp_path / "none", "final"))
    assert "quality" not in read_json(tmp_path / "refit" / "summary.json")["final_model"]
    assert "quality" not in read_json(tmp_path / "none" / "summary.json")
    capsys.readouterr()
    assert evaluate([f"run_dir={tmp_path / 'refit'}", "checkpoint.use=final"]) == 2
    assert "trained on the test events too (train.refit_on=everything)" in capsys.readouterr().err
    assert evaluation_preflight([f"run_dir={tmp_path / 'none'}"]) == 2
    told = capsys.readouterr().err
    assert "data.split=none" in told
    assert told.count("\n") == 1


def test_a_final_fit_may_be_asked_of_a_finished_run(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = tiny_run(store, tmp_path / "run", 2)
    assert run_here(words) == 0
    monkeypatch.setattr(Objective, "__call__", counting := _counting(Objective.__call__))
    assert run_here([*words, "train.refit=true"]) == 0
    assert counting.steps == [0, 1], "the run itself is not trained again"
    assert read_json(tmp_path / "run" / "summary.json")["final_model"]["selected_step"] == 2


def test_a_final_fit_needs_held_out_events():
    with pytest.raises(ConfigError, match=r"train\.refit=true needs events that are held out.*data\.split=none"):
        load_config(["train.refit=true", "data.split=none"])
