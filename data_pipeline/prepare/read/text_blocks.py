"""The bytes of a text file in blocks of whole lines: unpacked, as UTF-8, with line feeds at the ends of lines."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from configs.errors import DataError

BLOCK_BYTES = 1 << 23
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order marks, longest first: that of UTF-32 begins like that of UTF-16."""
_OTHERS = {b"PK\x03\x04": "a zip archive", b"PAR1": "a Parquet file"}
_LONE_RETURN = re.compile(rb"\r(?!\n)")
_BYTES_TO_JUDGE = 4096
_LONGEST_LINE = 1 << 26
"""Beyond it, carriage returns alone must be the ends of lines."""


def encoding_of(path: Path, wanted: str) -> str:
    """The encoding of ``path``: ``wanted``, or for ``auto`` what its first bytes say, ``utf-8`` where nothing.

    Raises :class:`DataError` for a file that is no text, and for UTF-16 that does not say which of its two it is.
    """
    with path.open("rb") as file:
        start = file.read(4)
    for magic, kind in _OTHERS.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {kind}; give text, plain or as .gz or .zst, or set data.source.layout")
    if wanted != "auto":
        return codecs.lookup(wanted).name
    with _unpacked(path) as text:
        start = text.read(_BYTES_TO_JUDGE)
    if any(start.startswith(magic) for magic in _PACKED):
        raise DataError(f"{path} is compressed twice; unpack it once")
    if name := encoding_by_mark(start):
        return name
    zeros = [start[k::2].count(0) for k in (0, 1)]
    if len(start) >= 8 and max(zeros) > 0.4 * len(start) / 2 and min(zeros) == 0:
        name = "utf-16-le" if zeros[1] else "utf-16-be"
        raise DataError(f"{path} looks like UTF-16 without a byte order mark; set data.source.encoding={name}")
    return "utf-8"


def encoding_by_mark(start: bytes) -> str:
    """What the byte order mark of a text says, UTF-16 or UTF-32; empty where it has none."""
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "")


def blocks_of(path: Path, encoding: str, mends_returns: bool = False) -> Iterator[bytes]:
    """Whole lines of ``path`` as UTF-8, without a byte order mark; bytes that are none of ``utf-8`` stay.

    ``mends_returns`` puts a line feed in place of each carriage return that stands alone.
    """
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace") if encoding != "utf-8" else None
    held, is_first = b"", True
    with _unpacked(path) as file:
        while True:
            raw = file.read(BLOCK_BYTES)
            block = held + (raw if decoder is None else decoder.decode(raw, final=not raw).encode())
            if is_first and len(block) >= 3:
                block, is_first = block.removeprefix(codecs.BOM_UTF8), False
            cut = len(block) if not raw else _end_of_lines(block, mends_returns or len(block) > _LONGEST_LINE)
            whole, held = block[:cut], block[cut:]
            if whole:
                yield _LONE_RETURN.sub(b"\n", whole) if mends_returns and b"\r" in whole else whole
            if not raw:
                return


def num_lone_returns(block: bytes) -> int:
    """Carriage returns of ``block`` that no line feed follows."""
    num_returns = block.count(b"\r")
    return num_returns - block.count(b"\r\n") if num_returns else 0


def _end_of_lines(block: bytes, by_returns: bool) -> int:
    """The place after the last line end; the last byte is left, since a line feed may follow a carriage return."""
    end = block.rfind(b"\n") + 1
    return end or (block.rfind(b"\r", 0, -1) + 1 if by_returns else 0)


def _unpacked(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        start = file.read(4)
    for magic, codec in _PACKED.items():
        if start.startswith(magic):
            stream: BinaryIO = pa.input_stream(str(path), compression=codec)
            return stream
    return path.open("rb")
