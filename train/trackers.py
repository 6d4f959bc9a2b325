"""Where the figures of a run go, step by step: TensorBoard's files, and by choice MLflow and Weights & Biases."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from configs.atomic_files import read_json, write_json
from configs.errors import ConfigError, DataError
from configs.schema.tracking import TrackingConfig

NAMES = "trackers.json"
"""In a run's folder: under which id each service knows it, so that a restart goes on there."""


class Tracker(Protocol):
    """Takes figures by their names, and is closed at the end."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of ``step``; after a restart steps may come again."""
        ...

    def close(self) -> None:
        """Everything is where it belongs when this returns."""
        ...


class TensorBoard:
    """Files below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As :class:`Tracker`."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        """As :class:`Tracker`."""
        self._writer.close()


class MLflow:
    """A run of an MLflow server or database; one that does not answer any more is told once and left alone."""

    def __init__(self, config: TrackingConfig, name: str, run_id: str) -> None:
        """``name`` of the run, ``run_id`` of it where it is known there. :class:`ConfigError` where that fails."""
        try:
            from mlflow.entities import Metric
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _not_installed(f"tracking.mlflow={config.mlflow}", "mlflow") from error
        self._metric, self._error, self._is_lost = Metric, MlflowException, False
        try:
            self._client = MlflowClient(tracking_uri=config.mlflow)
            self.run_id = run_id or self._new_run(config.mlflow_experiment, name)
            self._client.set_terminated(self.run_id, status="RUNNING")
        except (MlflowException, ImportError) as error:
            raise ConfigError(f"tracking.mlflow={config.mlflow} cannot be used: {_line_of(error)}") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As :class:`Tracker`. MLflow allows no @ in a name: ``ndcg_at_10``."""
        now_ms = int(time.time() * 1000)
        metrics = [
            self._metric(key.replace("@", "_at_"), float(value), now_ms, step) for key, value in values.items()
        ]
        self._try(lambda: self._client.log_batch(self.run_id, metrics=metrics))

    def close(self) -> None:
        """As :class:`Tracker`."""
        self._try(lambda: self._client.set_terminated(self.run_id))

    def _new_run(self, experiment: str, name: str) -> str:
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        return str(self._client.create_run(number, run_name=name).info.run_id)

    def _try(self, action: Any) -> None:
        if self._is_lost:
            return
        try:
            action()
        except self._error as error:
            self._is_lost = True
            print(f"warning: MLflow gets no more figures of this session: {_line_of(error)}", flush=True)


class WandB:
    """A run of Weights & Biases; its own process sends what comes, and waits where there is no network."""

    def __init__(self, config: TrackingConfig, name: str, run_id: str, folder: Path) -> None:
        """As :class:`MLflow`; files go to ``folder``."""
        try:
            import wandb
        except ImportError as error:
            raise _not_installed(f"tracking.wandb={config.wandb}", "wandb") from error
        self.run_id = run_id or secrets.token_hex(4)
        settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        try:
            self._run = wandb.init(
                project=config.wandb,
                name=name,
                id=self.run_id,
                resume="allow",
                dir=str(folder),
                settings=settings,
            )
        except wandb.errors.Error as error:
            raise ConfigError(f"tracking.wandb={config.wandb} cannot be used: {_line_of(error)}") from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """As :class:`Tracker`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """As :class:`Tracker`."""
        self._run.finish()


def open_trackers(config: TrackingConfig, folder: Path, name: str) -> list[Tracker]:
    """Those of ``config`` for the run ``name`` in ``folder``; on one rank. Raises :class:`ConfigError` for one that
    is not installed or cannot be reached."""
    if not (config.mlflow or config.wandb):
        return []
    path = folder / NAMES
    names = _names_in(path)
    found: list[Tracker] = []
    if config.mlflow:
        mlflow = MLflow(config, name, names.get("mlflow", ""))
        names["mlflow"] = mlflow.run_id
        found.append(mlflow)
    if config.wandb:
        wandb = WandB(config, name, names.get("wandb", ""), folder)
        names["wandb"] = wandb.run_id
        found.append(wandb)
    write_json(path, names)
    return found


def _names_in(path: Path) -> dict[str, Any]:
    """Nothing where the file is damaged: the run is a new one there."""
    try:
        return read_json(path) if path.is_file() else {}
    except DataError as error:
        print(f"warning: {error}; MLflow and W&B get a new run", flush=True)
        return {}


def _not_installed(key: str, extra: str) -> ConfigError:
    return ConfigError(
        f"{key} needs a package that is not installed; pip install 'shardrec[{extra}]', or leave it out"
    )


def _line_of(error: Exception) -> str:
    return str(error).partition("\n")[0]
