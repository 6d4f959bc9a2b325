"""The folder of a follow: which one it is, and a file for each window that was scored. No torch.

``follow.json`` says which choices it was begun with, ``rows/000001.json`` what a window gave. Each is whole or not
there, so that a kill at any moment leaves a beginning of the windows, from which the next start goes on.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.atomic_files import read_json, write_json
from configs.errors import ConfigError, DataError
from configs.flatten import flat, is_among
from configs.load import variants_of
from configs.schema import RunConfig
from data_pipeline.prepare.windows import CUT
from train.follow.journey import LOG, ROWS

IDENTITY = "follow.json"
_OF_A_RUN = "identity.json"
MAY_CHANGE = (
    *("run_dir", "config_dir", "scratch_dir", "log_every_steps", "hardware", "sharding", "checkpoint", "nonfinite"),
    *("recommend", "export", "train", "data.store", "data.version", "data.memory_gib", "data.spill_dir"),
    *("data.prefetch_batches", "data.prefetch_mib", "evaluation.batch_size", "follow.num_windows"),
    "follow.keep_models",
)
"""Keys that may change when a follow goes on: they do not change what a window gives."""


def refuse_other_follow(config: RunConfig) -> None:
    """Raise :class:`ConfigError` where ``run_dir`` holds something else, or another follow; changes nothing."""
    folder, identity = Path(config.run_dir), Path(config.run_dir) / IDENTITY
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run_dir={folder} is no folder; name another")
    if (folder / _OF_A_RUN).is_file():
        raise ConfigError(f"run_dir={folder} holds a run that `shardrec train` made; name a folder for follow alone")
    if not identity.is_file():
        if folder.is_dir() and (foreign := sorted(each.name for each in folder.iterdir() if each.name[0] != ".")):
            raise ConfigError(f"run_dir={folder} holds {foreign[0]}, which follow has not written; name a new folder")
        return
    if not (folder / LOG / CUT).is_file():
        return  # nothing has come of it: a wrong key of a log that could not be read may be set right
    saved, own = read_json(identity), _identity_of(config)
    for key in sorted(saved.keys() | own.keys(), key=lambda key: (key.count("."), key)):
        if saved.get(key) != own.get(key):
            raise ConfigError(
                f"run_dir={folder} follows with {key}={saved.get(key)}, not with {own.get(key)}; choose another "
                f"run_dir, or the same {key} to go on"
            )


def open_folder(config: RunConfig) -> Path:
    """Make or re-open ``run_dir``; raises as :func:`refuse_other_follow`."""
    refuse_other_follow(config)
    folder = Path(config.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / IDENTITY, _identity_of(config))
        (folder / ROWS).mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir={folder} cannot be written: {error.strerror}; choose another") from error
    return folder


def write_row(folder: Path, window: int, row: dict[str, Any]) -> None:
    """Keep what ``window`` gave: from now on it is done."""
    write_json(_row_path(folder, window), row)


def read_rows(folder: Path, num_windows: int) -> list[dict[str, Any]]:
    """What was kept of windows 1, 2, ... up to the first that is not done, ``num_windows`` at most."""
    rows = list[dict[str, Any]]()
    while len(rows) < num_windows and (path := _row_path(folder, len(rows) + 1)).is_file():
        row = read_json(path)
        if row.get("window") != len(rows) + 1:
            raise DataError(f"{path} is of window {row.get('window')}; put the file back as it was written")
        rows.append(row)
    return rows


def _row_path(folder: Path, window: int) -> Path:
    return folder / ROWS / f"{window:06d}.json"


def _identity_of(config: RunConfig) -> dict[str, Any]:
    keys = {**variants_of(config), **dict(flat(asdict(config)))}
    return {key: value for key, value in keys.items() if not is_among(key, MAY_CHANGE)}
