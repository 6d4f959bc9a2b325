"""Places of logs and stores: a local ``Path``, or an ``ObjectPath`` that is asked by the same names.

Objects are read by ranges. Every range is checked for its length and read again where it came back short, so that a
cut answer never reaches a decoder. pyarrow does not check: of a shorter range than asked for, with a header that says
so, its S3 client (26.0) returns a buffer of the full length whose end nobody wrote.
"""

import io
import os
import secrets
import shutil
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow.fs as pafs

from configs.url import is_url
from data_pipeline.store.object_client import connection_of, with_retries

_COPY_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """What a listing says of an object, by the names of ``os.stat_result``."""

    st_size: int
    st_mtime_ns: int


class ObjectFile(io.RawIOBase):
    """An object, open for reading at any place; one range of it can be held in memory."""

    def __init__(self, url: str) -> None:
        self._url = url
        system, path = connection_of(url)
        self._handle = with_retries(url, lambda: system.open_input_file(path))
        self._lock = threading.Lock()
        self.size = int(self._handle.size())
        self._position = 0
        self._held_from, self._held = 0, b""

    def again(self) -> "ObjectFile":
        """The same open object with a place and a held range of its own, for another reader."""
        other = ObjectFile.__new__(ObjectFile)
        other._url, other._handle, other._lock, other.size = self._url, self._handle, self._lock, self.size
        other._position, other._held_from, other._held = 0, 0, b""
        return other

    def hold(self, start: int, end: int) -> None:
        """Read bytes [start, end) by one request; they are what reads within them get until the next call."""
        self._held_from, self._held = start, self._fetched(start, end)

    def metadata(self) -> dict[str, str]:
        """What the store keeps beside the object, such as its ``ETag``."""
        found = self._handle.metadata() or {}
        return {str(_text(key)): str(_text(value)) for key, value in found.items()}

    def read(self, size: int | None = -1) -> bytes:
        """The next ``size`` bytes, fewer at the end of the object only; all that is left for -1."""
        start = min(self._position, self.size)
        end = self.size if size is None or size < 0 else min(start + size, self.size)
        self._position = end
        if self._held_from <= start and end <= self._held_from + len(self._held):
            return self._held[start - self._held_from : end - self._held_from]
        return self._fetched(start, end)

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer``; returns the number of bytes."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def _fetched(self, start: int, end: int) -> bytes:
        return with_retries(self._url, lambda: self._fetched_once(start, end)) if end > start else b""

    def _fetched_once(self, start: int, end: int) -> bytes:
        """Into a buffer with a mark in its last byte: bytes come in order, so that the mark outlives a short answer.

        Where the mark is there it may be the data's own byte; another mark decides. Marks are drawn, so that no data
        is unlucky twice.
        """
        buffer, drawn = bytearray(end - start), secrets.randbelow(256)
        for mark in (drawn, drawn ^ 0xFF):
            buffer[-1] = mark
            with self._lock:
                self._handle.seek(start)
                num_read = self._handle.readinto(buffer)
            if num_read == len(buffer) and buffer[-1] != mark:
                return bytes(buffer)
        raise OSError(f"not all of bytes {start} to {end} came back")


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """The URL of an object or of all objects below it, with the methods of ``Path`` that are used of places.

    There are no folders and no renaming: what is written is there when its writing ends, whole.
    """

    url: str
    """Without a slash at its end."""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """After the last slash."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """By which places are put in order, as local ones are."""
        return tuple(self.url.split("/"))

    def is_file(self) -> bool:
        """Whether this is one object."""
        return bool(self._info().type == pafs.FileType.File)

    def is_dir(self) -> bool:
        """Whether objects lie below this."""
        return bool(self._info().type == pafs.FileType.Directory)

    def exists(self) -> bool:
        """Whether this is an object or there are some below it."""
        return bool(self._info().type != pafs.FileType.NotFound)

    def stat(self) -> ObjectStatus:
        """Size and time of change; ``FileNotFoundError`` where there is no object."""
        info = self._info()
        if info.type != pafs.FileType.File:
            raise FileNotFoundError(f"{self.url} does not exist")
        return _status(info)

    def files_below(self) -> "dict[ObjectPath, ObjectStatus]":
        """All objects below this, in the order of their names; none where there is nothing."""
        system, path = connection_of(self.url)
        selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
        infos = with_retries(self.url, lambda: system.get_file_info(selector))
        found = {ObjectPath(self.url + _below(path, info.path)): _status(info) for info in infos if info.is_file}
        return {each: found[each] for each in sorted(found, key=lambda each: each.parts)}

    def open(self, mode: str = "rb") -> ObjectFile:
        """The object, for reading; ``FileNotFoundError`` where there is none."""
        assert mode == "rb", "objects are written whole, by write_bytes and send"
        return ObjectFile(self.url)

    def read_bytes(self) -> bytes:
        """The whole object."""
        with self.open() as file:
            return file.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Write the whole object, over one that is there."""
        self._write(lambda: io.BytesIO(content))

    def send(self, source: Path) -> None:
        """Write the bytes of a local file."""
        self._write(lambda: source.open("rb"))

    def fetch(self, target: Path) -> None:
        """Copy to a local file, with the time of change; the copy is under its name when it is whole."""
        partial = target.with_name(f"{target.name}.partial")
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.open() as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy, _COPY_BYTES)
        changed_ns = self.stat().st_mtime_ns
        os.utime(partial, ns=(changed_ns, changed_ns))
        partial.replace(target)

    def unlink(self) -> None:
        """Remove the object. One that a try has removed whose answer was lost is removed, and not missing."""
        system, path = connection_of(self.url)
        tries = count(1)

        def once() -> None:
            is_first = next(tries) == 1
            try:
                system.delete_file(path)
            except FileNotFoundError:
                if is_first:
                    raise

        with_retries(self.url, once)

    def _write(self, opened: Any) -> None:
        system, path = connection_of(self.url, is_read=False)

        def once() -> None:
            with opened() as source, system.open_output_stream(path, compression=None) as stream:
                shutil.copyfileobj(source, stream, _COPY_BYTES)

        with_retries(self.url, once)

    def _info(self) -> Any:
        system, path = connection_of(self.url)
        return with_retries(self.url, lambda: system.get_file_info(path))


AnyPath = Path | ObjectPath


def path_of(text: str) -> AnyPath:
    """The place that a person wrote as a path or URL; ``file://`` is a local path."""
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    return ObjectPath(text.rstrip("/")) if is_url(text) else Path(text)


def parquet_source(place: AnyPath) -> Path | ObjectFile:
    """What ``pq.ParquetFile`` and ``pq.read_table`` take: the path itself, or the object opened."""
    return place if isinstance(place, Path) else place.open()


def files_in(folder: AnyPath, pattern: str) -> list[AnyPath]:
    """The files in ``folder`` whose names from there fit ``pattern``, part by part, in order."""
    if isinstance(folder, Path):
        return [*sorted(folder.glob(pattern))]
    depth = pattern.count("/") + 1
    return [
        each
        for each in folder.files_below()
        if len(each.parts) == len(folder.parts) + depth and fnmatchcase("/".join(each.parts[-depth:]), pattern)
    ]


def objects_of(pattern: str) -> "list[tuple[ObjectPath, bool]]":
    """The objects whose URLs fit ``pattern`` (``*``, ``?``, ``[...]`` within a part, ``**`` over any number), each
    with True, and all below the folders that fit, with False; in order."""
    parts = pattern.rstrip("/").split("/")
    num_plain = next((k for k, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
    named = ObjectPath("/".join(parts))
    if num_plain == len(parts) and named.is_file():
        return [(named, True)]
    found: list[tuple[ObjectPath, bool]] = []
    for each in ObjectPath("/".join(parts[: max(num_plain, 3)])).files_below():
        if _fits(each.parts, parts):
            found.append((each, True))
        elif any(_fits(each.parts[:k], parts) for k in range(3, len(each.parts))):
            found.append((each, False))
    return found


def _fits(parts: tuple[str, ...], pattern: list[str]) -> bool:
    if not pattern or not parts:
        return not parts and all(each == "**" for each in pattern)
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or _fits(parts[1:], pattern)
    return (parts[0] == pattern[0] or fnmatchcase(parts[0], pattern[0])) and _fits(parts[1:], pattern[1:])


def _below(path: str, found: str) -> str:
    assert found.lstrip("/").startswith(path.lstrip("/")), "a listing names what is below its place"
    return found.lstrip("/")[len(path.lstrip("/")) :]


def _status(info: Any) -> ObjectStatus:
    return ObjectStatus(int(info.size), int(info.mtime_ns or 0))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value
