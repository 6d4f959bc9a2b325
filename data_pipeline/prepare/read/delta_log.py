"""The log of a Delta table, looked at where its library cannot read it: the file and line that are damaged."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from data_pipeline.prepare.read.json_lines import json_of
from data_pipeline.prepare.read.tables import names_in
from data_pipeline.store.paths import AnyPath, parquet_source

_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")
_LAST_CHECKPOINT = "_last_checkpoint"
_REQUIRED: Mapping[str, Mapping[str, type]] = {
    "add": {"path": str, "partitionValues": dict, "size": int, "modificationTime": int, "dataChange": bool},
    "remove": {"path": str, "dataChange": bool},
    "metaData": {"id": str, "schemaString": str, "partitionColumns": list},
    "protocol": {"minReaderVersion": int, "minWriterVersion": int},
}
"""Keys without which an action of the log means nothing."""
_OPTIONAL: Mapping[str, type] = {"stats": str, "tags": dict, "baseRowId": int, "deletionVector": dict}


def refuse_empty_commits(root: AnyPath) -> None:
    """Raise :class:`DataError` for a commit without a byte: the library reads it as one that changed nothing."""
    log = root / "_delta_log"
    names = names_in(log) if log.is_dir() else []
    for name in _since_checkpoint(names):
        if (log / name).stat().st_size == 0:
            raise damaged(log / name, "it is empty, and its version's events are not known")


def fault_in(root: AnyPath) -> DataError | None:
    """What is damaged in the log of the table at ``root``, by file and line; None where all looks as it must."""
    log = root / "_delta_log"
    names = names_in(log)
    return next(
        (damaged(log / name, reason) for name, reason in (*_checkpoints(log, names), *_commits(log, names))), None
    )


def damaged(path: AnyPath, reason: str) -> DataError:
    """The error of a file of the log that cannot be used."""
    return DataError(
        f"{path}, in the log of a Delta table, cannot be read: {reason}; bring it back from a copy, or write the "
        f"table's rows into a folder of Parquet files and set data.log to it"
    )


def _since_checkpoint(names: list[str]) -> list[str]:
    """The commits that a reader of the newest version reads, in order."""
    newest = max((int(found[1]) for name in names if (found := _CHECKPOINT.fullmatch(name))), default=-1)
    return [name for name in names if (found := _COMMIT.fullmatch(name)) and int(found[1]) > newest]


def _checkpoints(log: AnyPath, names: list[str]) -> Iterator[tuple[str, str]]:
    found = {name: int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name))}
    if _LAST_CHECKPOINT in names:
        hint = json_of((log / _LAST_CHECKPOINT).read_bytes())
        version = hint.get("version") if isinstance(hint, dict) else None
        if version not in found.values():
            yield _LAST_CHECKPOINT, f"it names the checkpoint of version {version}, which is not there"
    for name in found:
        try:
            pq.read_metadata(parquet_source(log / name))
        except (OSError, pa.ArrowException):
            yield name, "it is no whole Parquet file"


def _commits(log: AnyPath, names: list[str]) -> Iterator[tuple[str, str]]:
    commits = _since_checkpoint(names)
    has_checkpoint = len(commits) < sum(bool(_COMMIT.fullmatch(name)) for name in names) or any(
        _CHECKPOINT.fullmatch(name) for name in names
    )
    before = int(commits[0][:20]) - 1 if commits and has_checkpoint else -1
    for name in commits:
        for missing in range(before + 1, int(name[:20])):
            yield f"{missing:020d}.json", "it is not there, though later versions are"
            break
        before = int(name[:20])
        for number, line in enumerate((log / name).read_bytes().splitlines(), 1):
            if line.strip() and (reason := _fault_of(json_of(line))):
                yield name, f"line {number} {reason}"


def _fault_of(action: Any) -> str:
    if not isinstance(action, dict):
        return "is no whole JSON object"
    for kind, content in action.items():
        for key, type_ in _REQUIRED.get(kind, {}).items():
            value = content.get(key) if isinstance(content, dict) else None
            if not isinstance(value, type_) or (type_ is int and isinstance(value, bool)):
                return f"has no {kind}.{key} as Delta's protocol has it"
        for key, type_ in _OPTIONAL.items() if kind in _REQUIRED else ():
            if content.get(key) is not None and not isinstance(content[key], type_):
                return f"has {kind}.{key} in another form than Delta's protocol has it"
        if kind == "metaData" and not isinstance(json_of(content["schemaString"]), dict):
            return "has no metaData.schemaString as Delta's protocol has it"
    return ""
