"""The metadata of an Iceberg table, looked at before its library does: what is damaged is named by file and key."""

import gzip
import json
import zlib
from typing import Any

from configs.errors import DataError
from data_pipeline.store.paths import AnyPath

_MAGIC = b"Obj\x01"
_SYNC_BYTES = 16


def parsed_metadata(path: AnyPath) -> Any:
    """The table that ``path``, a ``*.metadata.json``, describes.

    Raises :class:`DataError`, which names the file and where known the key, for what is not as Iceberg has it.
    """
    from pydantic import ValidationError  # comes with pyiceberg, an extra
    from pyiceberg.exceptions import ValidationError as NoTable
    from pyiceberg.table.metadata import TableMetadataUtil

    entry = _json_of(path)
    if "format-version" not in entry:
        raise damaged(path, "its key 'format-version' is missing")
    if entry.get("current-snapshot-id") is None and "main" in (entry.get("refs") or {}):
        raise damaged(path, "its key 'current-snapshot-id' is missing")
    try:
        return TableMetadataUtil.parse_obj(entry)
    except ValidationError as error:
        found = error.errors()[0]
        keys = [str(part) for part in found["loc"] if not (isinstance(part, int) and part <= 3)]
        key = ".".join(keys) or "format-version"
        is_missing = found["type"] == "missing"
        raise damaged(
            path, f"its key {key!r} {'is missing' if is_missing else 'holds what Iceberg does not allow'}"
        ) from None
    except (NoTable, ValueError, TypeError, KeyError) as error:
        raise damaged(path, str(error)[:100]) from error


def check_avro(path: AnyPath) -> None:
    """Raise :class:`DataError` where ``path``, a list of files, is not there or is no whole file of Avro."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise damaged(path, "it is not there, though the table names it") from error
    if not content.startswith(_MAGIC):
        raise damaged(path, "it is no file of Avro")
    try:
        place = _end_of_header(content, len(_MAGIC))
        sync = content[place : place + _SYNC_BYTES]
        place += _SYNC_BYTES
        while place < len(content):
            _, place = _number(content, place)
            size, place = _number(content, place)
            place += size
            if size < 0 or content[place : place + _SYNC_BYTES] != sync:
                raise IndexError
            place += _SYNC_BYTES
    except IndexError:
        raise damaged(path, "it is cut off or overwritten") from None


def damaged(path: AnyPath, reason: str) -> DataError:
    """The error of a file of metadata that cannot be used."""
    return DataError(
        f"{path}, metadata of an Iceberg table, cannot be read: {reason}; bring it back from a copy, name an earlier "
        f"snapshot by data.source.snapshot, or export the table to Parquet"
    )


def _json_of(path: AnyPath) -> dict[str, Any]:
    content = path.read_bytes()
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        entry = json.loads(content)
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
        raise damaged(path, f"it is no whole JSON ({len(content):,} bytes)") from error
    if not isinstance(entry, dict):
        raise damaged(path, "it holds no JSON object")
    return entry


def _end_of_header(content: bytes, place: int) -> int:
    """Where the map of a header ends: blocks of names with values, and a 0."""
    while True:
        count, place = _number(content, place)
        if count == 0:
            return place
        if count < 0:  # then the block's size follows
            _, place = _number(content, place)
        for _ in range(2 * abs(count)):
            size, place = _number(content, place)
            place += size
            if size < 0 or place >= len(content):
                raise IndexError


def _number(content: bytes, place: int) -> tuple[int, int]:
    """Avro's long at ``place``, zigzag in groups of 7 bits, and the place after it."""
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1), place
        if shift > 63:
            raise IndexError
