"""Figures reach MLflow and Weights & Biases as they reach the run's own file, in one run over restarts."""

import sys
from pathlib import Path

import pytest

from configs.atomic_files import read_json
from configs.errors import ConfigError
from configs.schema.tracking import TrackingConfig
from runs import logged_steps, run_here, tiny_run
from train.trackers import NAMES, MLflow, open_trackers


@pytest.mark.slow
def test_mlflow_has_what_the_run_wrote_in_one_run_over_restarts(store: str, tmp_path: Path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    words = [*tiny_run(store, tmp_path / "run", 2), f"tracking.mlflow={address}", "tracking.mlflow_experiment=mine"]
    assert run_here(words) == 0
    assert run_here([*words, "num_steps=4"]) == 0
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == str(tmp_path / "run")
    found = {each.step: each.value for each in client.get_metric_history(run.info.run_id, "loss")}
    assert found == pytest.approx({row["step"]: row["loss"] for row in logged_steps(tmp_path / "run")})
    assert run.data.metrics["valid/ndcg_at_10"] > 0


@pytest.mark.slow
def test_wandb_has_what_the_run_wrote_without_a_network(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = [*tiny_run(store, tmp_path / "run", 2), "tracking.wandb=mine"]
    assert run_here(words) == 0
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    content = file.read_bytes()
    assert b"valid/ndcg@10" in content
    assert read_json(tmp_path / "run" / NAMES)["wandb"] in file.name


@pytest.mark.parametrize("service", ["mlflow", "wandb"])
def test_a_service_that_is_not_installed_is_refused_by_its_key(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in sys.modules if name.partition(".")[0] == service]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, service, None)
    config = TrackingConfig(**{service: "somewhere"})
    with pytest.raises(ConfigError, match=rf"tracking\.{service}=somewhere needs a package"):
        open_trackers(config, tmp_path, "run")


def test_without_a_service_nothing_is_written(tmp_path: Path):
    assert open_trackers(TrackingConfig(), tmp_path, "run") == []
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_any_more_is_told_once(capsys: pytest.CaptureFixture[str]):
    class LostError(Exception):
        pass

    def lost(*_: object, **__: object) -> None:
        raise LostError("no route to host\nand a long trace")

    tracker = MLflow.__new__(MLflow)
    tracker.run_id, tracker._is_lost, tracker._error = "1", False, LostError
    tracker._metric, tracker._client = tuple, type("Client", (), {"log_batch": lost, "set_terminated": lost})()
    tracker._metric = lambda *values: values  # type: ignore[assignment,return-value]
    for step in (1, 2):
        tracker.log(step, {"loss": 1.0})
    tracker.close()
    assert capsys.readouterr().out == ("warning: MLflow gets no more figures of this session: no route to host\n")
