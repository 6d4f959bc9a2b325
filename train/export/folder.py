"""The folder of an export: whole or not there, and replaced only where every file in it is one that we wrote.

It is written beside, under ``NAME.partial``, and renamed. ``model.json`` lists its files with their sums.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from configs.atomic_files import parse_json_with_sum
from configs.errors import ConfigError, DataError

MODEL = "model.json"
FORMAT = "shardrec export"
FORMAT_VERSION = 1
FILES_OF_MLFLOW = (
    "MLmodel",
    "conda.yaml",
    "input_example.json",
    "mlflow_model.py",
    "python_env.yaml",
    "requirements.txt",
    "serving_input_example.json",
)
FILES = (
    "README.md",
    "example.py",
    "example.json",
    "encoder.pt2",
    "encoder.onnx",
    "encoder.onnx.data",
    "encoder_compiled.pt2",
    "item_vectors.safetensors",
    "user_vectors.safetensors",
    "feature_vectors.safetensors",
    "items.parquet",
    "items.jsonl",
    "items.faiss",
    "users.parquet",
    "users.jsonl",
    *FILES_OF_MLFLOW,
    MODEL,
)
"""Every name that an export writes. ``model.json`` is removed last: what it lists is known to be ours."""
PARTIAL, REPLACED = ".partial", ".replaced"
"""End the name of an export that is being written, and of one while a newer one takes its place."""
COMPILED = "__pycache__"
"""A folder that Python makes where a script of an export is imported, as MLflow does."""
_COMPILED_SCRIPT = re.compile(r"(example|mlflow_model)\.[\w.-]+\.pyc")
MARK = ".shardrec_export"
"""Lies in a folder that is being written: its files may be removed, which no list names yet."""


def refuse_foreign(folder: Path) -> None:
    """Raise :class:`ConfigError` where ``folder`` is there and is not an export, or holds anything beside it."""
    if present := _present(folder):
        foreign = _changed_files(folder, present)
        _refuse_files(folder, foreign)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output``, empty; it takes the place of ``output`` when the block ends without an error.

    Raises :class:`ConfigError` where another export writes there, and :class:`OSError`.
    """
    partial = _beside(output, PARTIAL)
    _refuse_foreign_partial(partial)
    partial.mkdir(parents=True, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    is_ours = False
    try:
        _lock(lock, partial)
        is_ours = True
        (partial / MARK).touch()
        _bring_back(output)
        _remove_files(partial)
        yield partial
        (partial / MARK).unlink()
        _replace(partial, output)
    finally:
        if is_ours and (partial / MARK).exists():  # the block ended with an error
            _remove_files(partial)
            (partial / MARK).unlink()
            remove_export(partial)
        os.close(lock)


def sums_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file of ``folder`` but ``model.json``, by name."""
    return {path.name: _sum_of(path) for path in sorted(folder.iterdir()) if path.name not in (MODEL, MARK)}


def refuse_foreign_beside(output: Path) -> None:
    """The same of the folders that an export writes beside ``output``."""
    refuse_foreign(_beside(output, REPLACED))
    _refuse_foreign_partial(_beside(output, PARTIAL))


def _refuse_foreign_partial(folder: Path) -> None:
    present = _present(folder)
    if MARK in present:
        _refuse_files(folder, [name for name in present if name not in (MARK, *FILES)])
    else:  # whole, by a kill before it was renamed, or not ours
        refuse_foreign(folder)


def _present(folder: Path) -> list[str]:
    """The names in ``folder``, none where it is not there; :class:`ConfigError` where it is no folder."""
    if not os.path.lexists(folder):
        return []
    if not folder.is_dir():
        raise ConfigError(f"export.output: {folder} is there and is no folder; name another")
    return sorted(path.name for path in folder.iterdir())


def _refuse_files(folder: Path, foreign: list[str]) -> None:
    if foreign:
        raise ConfigError(
            f"export.output: {folder} holds {foreign[0]!r}, which no export wrote or which was changed since, and is "
            f"left as it is; name another folder"
        )


def _changed_files(folder: Path, present: list[str]) -> list[str]:
    """The files of ``folder`` that its ``model.json`` does not list as they are; all where there is none of ours."""
    try:
        document = parse_json_with_sum((folder / MODEL).read_bytes(), folder / MODEL)
    except (DataError, OSError):
        return present
    listed = document.get("files")
    if document.get("format") != FORMAT or not isinstance(listed, dict):
        return present
    others = [name for name in present if name != MODEL and not _is_compiled(folder / name)]
    return [name for name in others if not _is_as_listed(folder / name, listed.get(name))]


def _is_compiled(path: Path) -> bool:
    """Whether ``path`` is the folder that Python keeps its own form of our scripts in, and nothing else."""
    if path.name != COMPILED or path.is_symlink() or not path.is_dir():
        return False
    return all(_COMPILED_SCRIPT.fullmatch(each.name) and each.is_file() for each in path.iterdir())


def _is_as_listed(path: Path, listed: Any) -> bool:
    return path.is_file() and not path.is_symlink() and _sum_of(path) == listed


def _sum_of(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _replace(partial: Path, output: Path) -> None:
    """A kill in the middle leaves the older export whole, under another name; the next export brings it back."""
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    refuse_foreign(output)  # it may have changed meanwhile
    old = _beside(output, REPLACED)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    remove_export(old)


def _bring_back(output: Path) -> None:
    old = _beside(output, REPLACED)
    if old.exists() and not output.exists():
        old.rename(output)
    remove_export(old)


def remove_export(folder: Path) -> None:
    """Remove the files that an export writes, and the folder if nothing else lies in it."""
    if folder.is_dir():
        _remove_files(folder)
        with suppress(OSError):  # what is left is not ours
            folder.rmdir()


def _remove_files(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    if _is_compiled(folder / COMPILED):
        for path in (folder / COMPILED).iterdir():
            path.unlink()
        (folder / COMPILED).rmdir()


def _lock(file: int, partial: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"{partial} is being written by another export; wait for it, or name another") from error


def _beside(output: Path, ending: str) -> Path:
    return output.with_name(f"{output.name}{ending}")
