"""The histories of a store, in memory, by raw user id.

U users, T events of all of them.
"""

import io
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from configs.atomic_files import parse_json_with_sum
from configs.errors import DataError
from launch.serve.features import Codes, Features
from launch.serve.id_map import KIND_WORDS, IdMap, RawId

HistoryEvent = tuple[RawId, int, Codes | str | None]
"""An item, its time in milliseconds, and its features: of a store encoded, of posted events as JSON."""
MANIFEST, ITEMS, HISTORIES = "manifest.json", "items.parquet", "histories/part-*.parquet"
FORMAT_VERSION = 2


class StoreHistories:
    """What a store held when it was read: 12 bytes an event, 4 more for each feature, and the ids of users and
    items."""

    def __init__(self, folder: Path, features: Features) -> None:
        """Reads the newest version, of events the ``features`` too. Raises :class:`DataError` for a store that is
        missing, damaged, of another format or without a feature."""
        manifest = _manifest_of(folder)
        raw = [_raw_column(folder, manifest, feature.name) for feature in features]
        items = _column(_table(folder, manifest, ITEMS, ["raw_item"]), "raw_item")
        parts = _table(folder, manifest, HISTORIES, ["raw_user", "item", "timestamp", *raw])
        self.users = IdMap(_column(parts, "raw_user"), str(folder))
        self.items = IdMap(items, str(folder))
        self.first_time_ms: int = manifest["first_time_ms"]
        self.has_times: bool = manifest.get("has_times", True)
        lists = parts.column("item").combine_chunks()
        self._offsets = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))])
        self._items = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
        self._times = parts.column("timestamp").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        self._codes = [
            feature.encoded_column(parts.column(name).combine_chunks().flatten())
            for feature, name in zip(features, raw, strict=True)
        ]

    def history(self, user: RawId) -> list[HistoryEvent]:
        """Items of ``user`` with their times in milliseconds and features, the oldest first; empty for one that is
        unknown."""
        row = self.users.row_of.get(user)
        if row is None:
            return []
        events = slice(self._offsets[row], self._offsets[row + 1])
        items = [self.items.raw_ids[item] for item in self._items[events].tolist()]
        codes: Iterable[Codes] = repeat((), len(items))
        if self._codes:
            codes = zip(*(values[events].tolist() for values in self._codes), strict=True)
        return list(zip(items, self._times[events].tolist(), codes, strict=True))

    def refuse_other_items(self, items: IdMap, folder: Path) -> None:
        """Raise :class:`DataError` where the ids of this store at ``folder`` are not those of an export."""
        if self.items.kind is not items.kind:
            raise DataError(
                f"serve.store={folder}: its item ids are {KIND_WORDS[self.items.kind]}, those of the export are "
                f"{KIND_WORDS[items.kind]}; name the store that the run was trained on, or a newer one of its log"
            )
        if not self.items.row_of.keys() & items.row_of.keys():
            raise DataError(
                f"serve.store={folder} has no item of the export; name the store that the run was trained on, or a "
                f"newer one of the same log"
            )


def merged(stored: Sequence[HistoryEvent], posted: Sequence[HistoryEvent], has_times: bool) -> Sequence[HistoryEvent]:
    """Both in the order of their times, the oldest first; what a newer store holds too is there once, with the
    features of the store.

    A store without times (``has_times`` false) is older than what was posted.
    """
    if not posted:
        return stored
    known = {event[:2] for event in stored}
    both = [*stored, *(event for event in posted if event[:2] not in known)]
    if has_times:
        both.sort(key=lambda event: event[1])  # stable: the store first, then by arrival
    return both


def _raw_column(folder: Path, manifest: dict[str, Any], name: str) -> str:
    if name not in manifest.get("features", {}):
        raise DataError(
            f"serve.store={folder} has no feature {name!r}, which the model reads of each event; name the store that "
            f"the run was trained on, or a newer one of its log"
        )
    return f"raw_{name}"


def _manifest_of(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except FileNotFoundError as error:
        raise DataError(f"serve.store={folder} is no store: {path} is not there") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); put it back from a copy") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format_version {version}, a server reads {FORMAT_VERSION}; prepare the log again"
        )
    return parse_json_with_sum(text, path)


def _table(folder: Path, manifest: dict[str, Any], pattern: str, columns: list[str]) -> pa.Table:
    """Columns of the version's files of one kind, in the order of their numbers."""
    named = [name for name in manifest["files"] if fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}")]
    tables = [
        _checked_table(folder / name, manifest["files"][name], columns)
        for name in sorted(named, key=lambda name: name.rpartition("/")[2])
    ]
    if not tables:
        raise DataError(f"serve.store={folder} has no {pattern}; put it back from a copy, or prepare the log again")
    return pa.concat_tables(tables)


def _checked_table(path: Path, expected: dict[str, Any], columns: list[str]) -> pa.Table:
    try:
        content = path.read_bytes()
        if len(content) != expected["bytes"] or xxhash.xxh3_64_hexdigest(content) != expected["xxh3"]:
            raise DataError(
                f"{path} is not what the manifest lists; put it back from a copy, or prepare the log again"
            )
        return pq.read_table(io.BytesIO(content), columns=columns)
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); put it back from a copy, or prepare the log again"
        ) from error


def _column(table: pa.Table, name: str) -> list[RawId]:
    found: list[RawId] = table.column(name).to_pylist()
    return found
