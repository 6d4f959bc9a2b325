"""A Delta table by its own library: the files of one version, their partition values, and rows deleted by vector."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from configs.errors import DataError
from data_pipeline.prepare.read.delta_log import fault_in, refuse_empty_commits
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.tables import DELTA, missing_library, no_snapshot
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of

_PHYSICAL_NAME = "delta.columnMapping.physicalName"


def delta_files(root: AnyPath, snapshot: str) -> tuple[str, list[tuple[AnyPath, FileView]]]:
    """The version of the table at ``root``, and its files in the order in which they were added."""
    if find_spec("deltalake") is None:
        raise missing_library(root, DELTA, "deltalake")
    from deltalake import DeltaTable  # an extra

    refuse_empty_commits(root)
    with _reading(root):
        newest = DeltaTable(str(root), storage_options=_storage_options(root))
    table = newest
    if snapshot:
        if not snapshot.isdigit() or int(snapshot) > newest.version():
            raise no_snapshot(root, DELTA, snapshot, f"versions up to {newest.version()}")
        with _reading(root):
            table = DeltaTable(str(root), version=int(snapshot), storage_options=_storage_options(root))
    with _reading(root):
        fields = json.loads(table.schema().to_json())["fields"]
        actions = pa.table(table.get_add_actions()).to_pylist()
    deleted = _deleted_rows(root, table) if _has_vectors(table) else {}
    physical = {each["name"]: each["metadata"].get(_PHYSICAL_NAME, each["name"]) for each in fields}
    found = []
    for action in sorted(actions, key=lambda each: (each["modification_time"], each["path"])):
        place = _place(root, action["path"])
        partition = action.get("partition") or {}
        logical = {physical.get(name, name): name for name in physical}
        constants = {
            logical.get(name, name): None if value is None else _text_of(value) for name, value in partition.items()
        }
        view = FileView(
            constants=constants,
            physical={name: there for name, there in physical.items() if there != name},
            columns=list(physical),
            deleted=deleted.get(place.name),
        )
        found.append((place, view))
    return str(table.version()), found


def _has_vectors(table: Any) -> bool:
    return "deletionVectors" in (table.protocol().reader_features or [])


def _deleted_rows(root: AnyPath, table: Any) -> dict[str, np.ndarray]:
    """By the file's name, which a writer makes unique; :class:`DataError` where a vector is damaged."""
    from deltalake.exceptions import DeltaError  # an extra

    found = {}
    try:
        batches = list(pa.RecordBatchReader.from_stream(table.deletion_vectors()))
    except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{root} is a Delta table, and which of its rows are deleted cannot be told: a file "
            f"deletion_vector_*.bin is damaged or not there; bring it back from a copy, or name an earlier version "
            f"by data.source.snapshot"
        ) from error
    for batch in batches:
        for path, keeps in zip(batch.column(0).to_pylist(), batch.column(1), strict=True):
            keep = keeps.values.to_numpy(zero_copy_only=False)
            found[unquote(path).rsplit("/", 1)[-1]] = np.flatnonzero(~keep).astype(np.int64)
    return found


def _place(root: AnyPath, path: str) -> AnyPath:
    """Paths are URLs, relative to the table; those of a shallow clone are absolute."""
    if "://" in path:
        return path_of(path)
    plain = unquote(path)
    if plain.startswith("/"):
        return Path(plain)
    place = root
    for name in plain.split("/"):
        place = place / name
    return place


def _text_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _storage_options(root: AnyPath) -> dict[str, str]:
    """What the library does not take from the environment by itself, by the names that our own reader looks at."""
    if not isinstance(root, ObjectPath):
        return {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else "")
    options = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": region}
    if endpoint.startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    return {key: value for key, value in options.items() if value}


@contextmanager
def _reading(root: AnyPath) -> Iterator[None]:
    from deltalake.exceptions import DeltaError  # an extra

    try:
        yield
    except DataError:
        raise
    except (DeltaError, OSError, ValueError, pa.ArrowException) as error:
        if (fault := fault_in(root)) is not None:
            raise fault from error
        raise DataError(
            f"{root} is a Delta table that cannot be read{_feature_in(str(error))}; write its rows into a folder of "
            f"Parquet files, such as by spark.read.format('delta').load(TABLE).write.parquet(FOLDER), and set "
            f"data.log=FOLDER"
        ) from error


def _feature_in(message: str) -> str:
    """Which part of Delta's protocol the library does not know, if it says so."""
    if found := re.search(r"[Ff]eature '?(\w+)'? is not supported", message):
        return f": it uses the feature {found[1]}, which deltalake does not know"
    if found := re.search(r"reader version (\d+)", message):
        return f": it needs a reader of version {found[1]}, which deltalake is not"
    return " by deltalake, though each file of its _delta_log looks whole"
