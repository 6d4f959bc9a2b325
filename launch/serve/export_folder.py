"""The files of an export, read once and compared with their sums: what is used is what was summed."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.atomic_files import parse_json_with_sum
from configs.errors import DataError
from launch.serve.features import Features, features_of

MODEL, EXAMPLES, ITEM_COUNTS = "model.json", "example.json", "items.parquet"
FORMAT, FORMAT_VERSION = "shardrec export", 1
_INPUTS = {"item_vectors", "lengths", "user_vectors"}
"""Inputs of a program that a server has, beside the features of events."""


@dataclass(frozen=True, slots=True)
class ExportFiles:
    """``card`` is ``model.json``, ``version`` the beginning of its SHA-256, ``contents`` the files that it names."""

    folder: Path
    version: str
    card: dict[str, Any]
    contents: dict[str, bytes]
    features: Features
    """What the model reads of each event beside its item."""

    def shown(self, name: str) -> str:
        """The path of a file, for messages."""
        return str(self.folder / name)


def read_export(folder: Path) -> ExportFiles:
    """The export in ``folder``. Raises :class:`DataError` for one that is missing, damaged or not for this server."""
    path = folder / MODEL
    if not path.is_file():
        raise DataError(
            f"export={folder} is no export: {path} does not exist; write one with `shardrec export run_dir=RUN_DIR`"
        )
    text = _bytes_of(path)
    card = parse_json_with_sum(text, path)
    if card.get("format") != FORMAT or card.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"{path} is of the format {card.get('format')!r} {card.get('format_version')}, this program serves "
            f"{FORMAT!r} {FORMAT_VERSION}; export the run again"
        )
    try:
        needed = _needed(card)
        inputs = {each["name"] for each in card["program"]["inputs"]}
        listed = {name: card["files"][name] for name in needed}
        features = features_of(card)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{path} lacks {error}; export the run again") from error
    if others := sorted(inputs - _INPUTS - {f"features.{each.name}" for each in features}):
        raise DataError(
            f"{path}: the program takes {others[0]}, which this server does not have; export the run again"
        )
    contents = {name: _checked(folder / name, listed[name]) for name in needed}
    refuse_pickles(contents[card["program"]["file"]], folder / card["program"]["file"])
    return ExportFiles(folder, hashlib.sha256(text).hexdigest()[:12], card, contents, features)


def stamp_of(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Changes when a file of ``folder`` does; empty where there is none."""
    try:
        states = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return ()
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states)


def refuse_pickles(program: bytes, path: Path) -> None:
    """Raise :class:`DataError` where the archive would have torch unpickle something: a pickle can run any code."""
    try:
        with zipfile.ZipFile(io.BytesIO(program)) as archive:
            names = archive.namelist()
            inputs = [name for name in names if "/data/sample_inputs/" in name and archive.getinfo(name).file_size]
            listings = [json.loads(archive.read(name)) for name in names if name.endswith("_config.json")]
    except (zipfile.BadZipFile, ValueError, KeyError, RecursionError, NotImplementedError, OSError) as error:
        raise DataError(f"{path} is no program that torch.export wrote ({error}); export the run again") from error
    if inputs or any(_uses_pickle(each) for each in listings):
        raise DataError(f"{path} holds a pickle, which could run any code, and is not loaded; export the run again")


def _uses_pickle(node: Any) -> bool:
    if isinstance(node, dict):
        return bool(node.get("use_pickle")) or any(map(_uses_pickle, node.values()))
    return isinstance(node, list) and any(map(_uses_pickle, node))


def _needed(card: dict[str, Any]) -> list[str]:
    tables = card["tables"].values()
    names = [
        card["program"]["file"],
        *(table[key] for table in tables for key in ("file", "ids")),
        ITEM_COUNTS,
        EXAMPLES,
    ]
    if any(Path(name).name != name for name in names):
        raise KeyError("plain names of files")
    return names


def _checked(path: Path, listed: dict[str, Any]) -> bytes:
    content = _bytes_of(path)
    if len(content) != listed.get("bytes") or hashlib.sha256(content).hexdigest() != listed.get("sha256"):
        raise DataError(f"{path} is not as {MODEL} lists it: it is damaged, or is being copied; export the run again")
    return content


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); export the run again") from error
