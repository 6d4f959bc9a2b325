"""What a file holds, by its first bytes: for names that do not say, and only where that is safe."""

import bz2
import json
import lzma
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.text_blocks import encoding_by_mark
from data_pipeline.store.paths import AnyPath

_COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
}
FOREIGN = {
    b"ORC": "an ORC file",
    b"Obj\x01": "an Avro file",
    b"ARROW1": "an Arrow (Feather) file",
    b"FEA1": "a Feather file",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"SQLite format 3": "an SQLite database",
    b"\xff\x06\x00\x00sNaPpY": "compressed by Snappy",
    b"SEQ\x06": "a Hadoop sequence file",
    b"\x89HDF": "an HDF5 file",
}
"""Data that is not read, which must not silently be left out."""
_START_BYTES = 2**16
_PACKED_START_BYTES = 2**21
"""A block of bz2 holds 900,000 bytes, and gives none of them before its end."""


def start_of(path: AnyPath, num_bytes: int = _START_BYTES) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return bytes(file.read(num_bytes))


def foreign_format(start: bytes) -> str:
    """What the file is, where it is data that is not read; else empty."""
    return next((words for magic, words in FOREIGN.items() if start.startswith(magic)), "")


def view_of_content(path: AnyPath, start: bytes, source: SourceConfig, needed: Sequence[str]) -> FileView | None:
    """How the file is read, by its ``start``; None where nothing says that it is a part of the log.

    A text is one where its first line is JSON with the first of the columns ``needed``, or a header with all of them,
    or where ``data.source.layout`` says how the log's texts are written.
    """
    if start.startswith(b"PAR1"):
        is_wanted = source.layout in (Layout.AUTO, Layout.PARQUET)
        return FileView(layout=Layout.PARQUET) if is_wanted and _ends_as_parquet(path) else None
    compression = compression_of(start)
    if compression:
        start = start_of(path, _PACKED_START_BYTES)
    text = unpacked_start(start, compression) if compression else start
    view = _view_of_text(text, source, needed)
    if view is not None:
        view.compression = compression
    return view


def compression_of(start: bytes) -> str:
    """By which a file is compressed; empty where it is not."""
    return next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), "")


def unpacked_start(start: bytes, compression: str) -> bytes:
    """What the first bytes of a compressed file unpack to; nothing where they are damaged."""
    try:
        if compression == "xz":
            return lzma.LZMADecompressor().decompress(start, _START_BYTES)
        if compression == "bz2":
            return bz2.BZ2Decompressor().decompress(start, _START_BYTES)
        with pa.input_stream(pa.BufferReader(start), compression=compression) as stream:
            return _all_that_unpacks(stream)
    except (OSError, ValueError, EOFError, lzma.LZMAError, pa.ArrowException):
        return b""


def _all_that_unpacks(stream: Any) -> bytes:
    """The start is cut off in the middle of a block: bytes before that are whole."""
    found = b""
    try:
        while len(found) < _START_BYTES and (more := stream.read(512)):
            found += more
    except (OSError, pa.ArrowException):
        pass
    return found


def _view_of_text(start: bytes, source: SourceConfig, needed: Sequence[str]) -> FileView | None:
    encoding = encoding_by_mark(start) or ("utf-8" if source.encoding == "auto" else source.encoding)
    lines = start.decode(encoding, errors="replace").removeprefix("\ufeff").splitlines()
    first = next((line for line in lines if line.strip()), "")
    if not first or "\0" in first or "\ufffd" in first[:200]:
        return None
    if source.layout in (Layout.AUTO, Layout.JSON_LINES) and _is_event(first, needed):
        return FileView(layout=Layout.JSON_LINES)
    if source.layout not in (Layout.AUTO, Layout.DELIMITED):
        return None
    for separator in dict.fromkeys((source.separator, ",", "tab", ";", "|")):
        names = [name.strip().strip('"') for name in first.split("\t" if separator == "tab" else separator)]
        is_header = len(names) > 1 and all(name in names for name in needed)
        if is_header if not source.header else len(names) == len(source.header) and separator == source.separator:
            return FileView(layout=Layout.DELIMITED, separator=separator)
    return None


def _is_event(line: str, needed: Sequence[str]) -> bool:
    try:
        entry = json.loads(line.lstrip("\x1e"))
    except (ValueError, RecursionError):
        return False
    return isinstance(entry, dict) and needed[0] in entry


def _ends_as_parquet(path: AnyPath) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 4))
        return bytes(file.read(4)) == b"PAR1"
