"""Which models a run folder holds, as its files say, for whoever is no rank or has not started one yet."""

from pathlib import Path

from configs.errors import DataError
from configs.run_dir import READER, local_run_dir
from configs.schema import CheckpointUse, RunConfig
from data_pipeline.store.paths import AnyPath, path_of
from train.progress import PROGRESS
from train.run_dir.checkpoint_folder import BEST, FINAL, REPLACED
from train.run_dir.remote_copy import CHECKPOINTS

MODELS_TO_SHIP = {CheckpointUse.AUTO: (FINAL, BEST), CheckpointUse.BEST: (BEST,), CheckpointUse.FINAL: (FINAL,)}
"""The model that a verb hands on is the first of these that the run has."""


def refuse_without_model(config: RunConfig, key: str = "run_dir") -> None:
    """Raise :class:`DataError` for the run at ``key``, by default ``config``'s own, that has no model yet of those
    that ``checkpoint.use`` allows."""
    name = str(getattr(config, key))
    _model_in(path_of(name), config, f"{key}={name}")


def model_folder(config: RunConfig) -> Path:
    """The folder of the model to ship, of a run in a folder; :class:`DataError` where there is none."""
    return Path(str(_model_in(local_run_dir(config, READER), config, f"run_dir={config.run_dir}")))


def _model_in(run_dir: AnyPath, config: RunConfig, shown: str) -> AnyPath:
    wanted = MODELS_TO_SHIP[config.checkpoint.use]
    for name in wanted:
        for whole in (name, f"{name}{REPLACED}"):
            folder = run_dir / CHECKPOINTS / whole
            if (folder / PROGRESS).is_file():
                return folder
    raise DataError(
        f"{shown} has no {' or '.join(wanted)} model yet (checkpoint.use="
        f"{config.checkpoint.use.value}); go on with the same `shardrec train` command until it was validated, or to "
        f"its end"
    )
