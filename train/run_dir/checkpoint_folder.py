"""The folders and files of a run's checkpoints: which are ours, and how ours go. Nothing else is touched."""

import re
from contextlib import suppress
from pathlib import Path

from configs.errors import ConfigError
from train.progress import PROGRESS

BEST = "best"
FINAL = "final"
"""The model to ship of a run that has one: of a final fit, or without held-out events."""
REFIT = "refit-"
"""Begins the names of a final fit's own checkpoints."""
INDEX = "index.json"
PARTIAL = ".partial"
"""Ends the name of a checkpoint that is being written."""
REPLACED = ".replaced.partial"
"""Ends the name of a checkpoint while a newer one takes its place."""
_NAME = re.compile(rf"({REFIT})?step-\d{{8,}}|{BEST}|{FINAL}")
_FILE = re.compile(r"rank-\d{5,}\.safetensors|index\.json|progress\.json")


def step_name(step: int, series: str = "") -> str:
    """The folder of the checkpoint of ``step``; ``series`` is empty, or :data:`REFIT`."""
    return f"{series}step-{step:08d}"


def series_of(name: str) -> str:
    """The series that the checkpoint ``name`` belongs to."""
    return REFIT if name.startswith(REFIT) else ""


def is_checkpoint_name(name: str) -> bool:
    """Whether we write checkpoints under ``name``; ``step-00000010.good`` is somebody else's."""
    return _NAME.fullmatch(name) is not None


def is_step_name(name: str) -> bool:
    """Whether ``name`` is that of a step's checkpoint, of either series."""
    return is_checkpoint_name(name) and name not in (BEST, FINAL)


def is_checkpoint_file(name: str) -> bool:
    """Whether a checkpoint has a file of this name."""
    return _FILE.fullmatch(name) is not None


def remove_checkpoint(folder: Path) -> None:
    """Remove our files of a checkpoint, what makes it whole first, and the folder if nothing else lies in it."""
    (folder / PROGRESS).unlink(missing_ok=True)
    for path in _entries(folder):
        if is_checkpoint_file(path.name) or _is_our_partial(path.name):
            path.unlink(missing_ok=True)
    with suppress(OSError):  # what is left is not ours
        folder.rmdir()


def replace_checkpoint(partial: Path, final: Path) -> None:
    """Put ``partial`` in the place of ``final``; a kill in between leaves one of the two for the next start."""
    old = final.with_name(f"{final.name}{REPLACED}")
    if final.exists():
        if not final.is_dir():
            raise ConfigError(f"{final} is no checkpoint, and is in the way of one; move it")
        final.rename(old)
    partial.rename(final)
    _finish_replacement(old, final)


def finish_replacements(checkpoints: Path) -> None:
    """Bring back what a kill in the middle of :func:`replace_checkpoint` took away."""
    for old in _entries(checkpoints):
        name = old.name.removesuffix(REPLACED)
        if name != old.name and is_checkpoint_name(name):
            final = checkpoints / name
            if final.exists():
                _finish_replacement(old, final)
            else:
                old.rename(final)


def _finish_replacement(old: Path, final: Path) -> None:
    """The old checkpoint goes; what else lay in its folder stays under the name that it had."""
    if not old.exists():
        return
    remove_checkpoint(old)
    for path in _entries(old):
        if not (final / path.name).exists():
            path.rename(final / path.name)
    with suppress(OSError):
        old.rmdir()


def _entries(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir())
    return []


def _is_our_partial(name: str) -> bool:
    """What a kill left of :func:`configs.atomic_files.write_atomically`."""
    return name.startswith((f".{PROGRESS}.", f".{INDEX}.")) and name.endswith(".partial")
