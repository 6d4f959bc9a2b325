"""The folder of a run: what it was started with, so that the same folder again resumes and another run is refused."""

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.atomic_files import (
    parse_json_with_sum,
    parse_text_with_sum,
    read_json,
    write_atomically,
    write_json,
    write_text,
)
from configs.errors import ConfigError
from configs.load import resolved_yaml
from configs.run_dir import describe_run_dir, local_run_dir
from configs.schema import RunConfig
from data_pipeline.store.paths import path_of
from train.run_dir.flatten import flat

MAY_CHANGE = (
    "run_dir",
    "config_dir",
    "scratch_dir",
    "num_epochs",
    "num_steps",
    "log_every_steps",
    "hardware",
    "sharding",
    "checkpoint",
    "nonfinite",
    "data.log",
    "data.store",
    "data.memory_gib",
    "data.spill_dir",
    "data.engine",
    "data.spark_master",
    "data.prefetch_batches",
    "data.prefetch_mib",
    "evaluation.batch_size",
)
"""Keys that a resumed run may set anew: they do not change which batches are learned from.

``num_epochs`` and ``num_steps`` stretch the schedule of the rates anew, from the step that is reached."""
IDENTITY = "identity.json"
OVERRIDES = "overrides.txt"
STOPPED = "STOPPED"
"""Is there when the last session ended by a stop signal, with everything saved; holds the step."""


def open_run_folder(config: RunConfig, overrides: Sequence[str], fingerprint: str) -> Path:
    """Make or re-open the local folder of ``run_dir``; rank 0 only.

    Raises :class:`ConfigError` for a folder of another run.
    """
    folder = local_run_dir(config)
    identity = {**dict(flat(asdict(config))), "data.fingerprint": fingerprint}
    identity = {key: value for key, value in identity.items() if not key.startswith(MAY_CHANGE)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_other_run(folder / IDENTITY, config.run_dir, identity)
        (folder / STOPPED).unlink(missing_ok=True)
        write_json(folder / IDENTITY, identity)
        write_text(folder / "config.yaml", resolved_yaml(config))
        write_text(folder / OVERRIDES, "".join(f"{each}\n" for each in overrides))
        write_atomically(folder / "environment.json", json.dumps(_environment(config), indent=2))
    except OSError as error:
        raise ConfigError(
            f"{describe_run_dir(config)} cannot be written: {error.strerror}; choose another"
        ) from error
    return folder


def mark_stopped(folder: Path, step: int) -> None:
    """Leave the mark that launchers read before they start a run again; one rank a folder."""
    write_atomically(folder / STOPPED, f"{step}\n")


def saved_fingerprint(run_dir: str) -> str:
    """The fingerprint of the data that the run of ``run_dir`` learnt from."""
    path = path_of(run_dir) / IDENTITY
    if not path.is_file():
        raise ConfigError(f"run_dir={run_dir} holds no run; train it first")
    return str(parse_json_with_sum(path.read_bytes(), path)["data.fingerprint"])


def saved_overrides(run_dir: str) -> list[str]:
    """The overrides that the run of ``run_dir`` was started with, but for the machine's own ``scratch_dir``."""
    path = path_of(run_dir) / OVERRIDES
    if not path.is_file():
        raise ConfigError(f"run_dir={run_dir} holds no run; train it first")
    text = parse_text_with_sum(path.read_bytes(), path)
    return [each for each in text.splitlines() if not each.startswith("scratch_dir=")]


def _refuse_other_run(path: Path, run_dir: str, identity: dict[str, Any]) -> None:
    if not path.exists():
        return
    saved = read_json(path)
    for key in sorted(saved.keys() | identity.keys()):
        if saved.get(key) != identity.get(key):
            raise ConfigError(
                f"run_dir={run_dir} is another run: there {key}={saved.get(key)}, here {identity.get(key)}; "
                f"choose another run_dir, or the same {key} to resume"
            )


def _environment(config: RunConfig) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": _commit(),
        "threads": config.hardware.num_threads,
        "versions": {name: version(name) for name in ("torch", "torchrec", "fbgemm-gpu", "hydra-core", "pyarrow")},
    }


def _commit() -> str:
    """The commit of this code, not of the folder that the command was started in."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
    return done.stdout.strip()
