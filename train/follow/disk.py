"""What a follow may remove, where ``follow.keep_models`` asks for it: older models, and versions of the store that no
other model reads.

A model goes as a whole or not at all: one in whose folder anything lies that training did not write is kept.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from data_pipeline.prepare.prune import prune
from train.evaluate import EVALUATION
from train.follow.journey import STORE, Journey
from train.run_dir.checkpoint_folder import is_checkpoint_file, is_checkpoint_name
from train.run_dir.identity import IDENTITY
from train.run_dir.remote_copy import CHECKPOINTS, RECORDS

_OTHERS = re.compile(r"events/events\.out\.tfevents\.[^/]+|\.writer/(\d{8}\.json|lock|members)")


def remove_older(journey: Journey, window: int) -> Iterator[str]:
    """Remove what ``follow.keep_models`` does not keep once ``window`` is done, and say of each what became of it.

    The first model stays, and so does each model's newest one, which scores the next window.
    """
    if not journey.config.follow.keep_models:
        return
    for name in _older(journey, window):
        folder = Path(journey.run_dir(name))
        if not folder.is_dir() or folder.is_symlink():
            continue
        if foreign := _foreign_in(folder):
            yield f"{folder}: kept, it holds {foreign}, which training did not write"
            continue
        _remove_run(folder)
        yield f"{folder}: removed (follow.keep_models={journey.config.follow.keep_models})"
    yield from prune(str(journey.folder / STORE))


def _older(journey: Journey, window: int) -> list[str]:
    num_kept, found = journey.config.follow.keep_models, list[str]()
    for model, every in journey.models.items():
        updates = journey.updates(every, window)
        found += [journey.run_of(model, update) for update in updates[:-num_kept]]
    return found


def _foreign_in(folder: Path) -> str:
    """A file below ``folder`` that no training wrote; empty where there is none."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or _is_ours(name)):
            return name
    return ""


def _is_ours(name: str) -> bool:
    parts = name.split("/")
    if parts[0] == CHECKPOINTS and len(parts) == 3:
        return is_checkpoint_name(parts[1]) and is_checkpoint_file(parts[2])
    return name in RECORDS or name == EVALUATION or _OTHERS.fullmatch(name) is not None


def _remove_run(folder: Path) -> None:
    """What says that it is a run goes last: a kill in the middle is gone on from."""
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    for path in sorted(files, key=lambda path: path.name == IDENTITY):
        path.unlink()
    folders = [path for path in folder.rglob("*") if path.is_dir()]
    for path in [*sorted(folders, key=lambda path: len(path.parts), reverse=True), folder]:
        with suppress(OSError):  # something has come meanwhile
            path.rmdir()
