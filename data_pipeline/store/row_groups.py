"""The row groups of a store's histories, in order over all its parts: their columns, and what they take up."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from data_pipeline.store.file_sums import FileSum, check_size, check_sum, damaged
from data_pipeline.store.manifest import HISTORIES, Manifest, paths_of
from data_pipeline.store.paths import AnyPath, ObjectFile, parquet_source

COLUMNS = ["user", "item", "timestamp"]
_VALUE_BYTES = {"INT32": 4, "INT64": 8, "FLOAT": 4}
_FOOTERS_AT_ONCE = 16
"""Of a store behind a URL, where opening a part is two requests and their waits."""


@dataclass(slots=True)
class _Part:
    """A file of histories with its footer read."""

    path: AnyPath
    source: Path | ObjectFile
    parquet: pq.ParquetFile
    expected: FileSum | None
    """What was written, where the manifest says it."""
    columns: dict[str, int] = field(init=False)
    """Where the footer has each column."""
    lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    """Held while a thread reads through ``parquet``."""
    is_checked: bool = field(init=False, default=False)
    """Whether all bytes of a local file have been looked at; pages alone leave out what lies between them."""
    check_lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        schema = self.parquet.schema
        self.columns = {schema.column(k).path.split(".")[0]: k for k in range(len(schema))}

    def check(self) -> None:
        """Look at a local file's bytes once, before the first of them is used: 0.1 s a GB where it is in memory."""
        if self.is_checked or not isinstance(self.path, Path):
            return
        with self.check_lock:
            if not self.is_checked:
                check_sum(self.path, self.expected)
                self.is_checked = True


class _Sizes(NamedTuple):
    """What a row group takes up."""

    num_file_bytes: int
    num_decoded_bytes: int
    num_events: int


class RowGroups:
    """Reads the footers once. Safe to use from several threads.

    A thread that reads a file has it for itself, or opens it anew, and decodes on its own: while threads shared a
    ``ParquetFile`` that used Arrow's threads, pyarrow 26.0.1 was seen to stand still within an epoch of 5,000 row
    groups. Row groups are read one at a time by ``read_row_group``: dataset scanners keep growing in memory. Nothing
    is buffered ahead: an open file would keep the bytes of the row group that was read last.

    The checksums of pages are verified at every read. A local part is summed as a whole before its first read, so
    that a rank looks at the parts that hold its users; of an object the store that keeps it does that.
    """

    def __init__(self, store: str, manifest: Manifest, features: Sequence[str] = ()) -> None:
        """Raises :class:`DataError` for a part that is no Parquet file, has another size than it was written with or
        lacks one of :attr:`columns`."""
        self.columns = [*COLUMNS, *features]
        """What is read of a history: :data:`COLUMNS` and features."""
        parts = _opened(paths_of(store, manifest, HISTORIES), self.columns)
        self._places = [(part, row_group) for part in parts for row_group in range(part.parquet.num_row_groups)]
        self._found_sizes: list[_Sizes | None] = [None] * len(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def check(self) -> None:
        """Look at the bytes of every local part; :class:`DataError` for one that is not as it was written."""
        for part in {id(part): part for part, _ in self._places}.values():
            part.check()

    def num_users(self, index: int) -> int:
        """Rows of row group ``index``."""
        part, row_group = self._places[index]
        return int(part.parquet.metadata.row_group(row_group).num_rows)

    def table(self, index: int, columns: list[str] | None = None) -> tuple[pa.Table, str]:
        """``columns`` of row group ``index``, by default all, and where they are from; from an object by one request,
        and by one more where bytes were damaged on their way. Raises :class:`DataError` where it cannot be read."""
        part, row_group = self._places[index]
        where, columns = f"{part.path}, row group {row_group}", columns or list(part.columns)
        part.check()
        try:
            if isinstance(part.source, Path):
                return _read(part, row_group, columns), where
            source, span = part.source.again(), _span_of(self._chunks(index, columns))
            source.hold(*span)
            try:
                return _decoded(source, part.parquet.metadata, row_group, columns), where
            except (pa.ArrowException, OSError):
                source.hold(*span)
            return _decoded(source, part.parquet.metadata, row_group, columns), where
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{where}: cannot be read ({error}); prepare the store again") from error

    def num_file_bytes(self, index: int) -> int:
        """Bytes of the chunks of :attr:`columns`, as they lie in the file."""
        return self._sizes(index).num_file_bytes

    def num_decoded_bytes(self, index: int) -> int:
        """Values of the lists (an empty list counts one) and the offsets."""
        return self._sizes(index).num_decoded_bytes

    def num_events(self, index: int) -> int:
        """Events of row group ``index`` (an empty list counts one)."""
        return self._sizes(index).num_events

    def _sizes(self, index: int) -> _Sizes:
        """From the footer, the first time; to look there takes ten times as long."""
        found = self._found_sizes[index]
        if found is None:
            by_name = dict(zip(self.columns, self._chunks(index, self.columns), strict=True))
            lists = [chunk for name, chunk in by_name.items() if name != "user"]
            found = self._found_sizes[index] = _Sizes(
                sum(chunk.total_compressed_size for chunk in by_name.values()),
                8 * (self.num_users(index) + 1)
                + sum(chunk.num_values * _VALUE_BYTES.get(chunk.physical_type, 8) for chunk in lists),
                int(by_name["item"].num_values),
            )
        return found

    def _chunks(self, index: int, columns: list[str]) -> list[pq.ColumnChunkMetaData]:
        """What the footer says of ``columns`` in row group ``index``."""
        part, row_group = self._places[index]
        metadata = part.parquet.metadata.row_group(row_group)
        return [metadata.column(part.columns[name]) for name in columns]


def _opened(paths: list[tuple[AnyPath, FileSum | None]], columns: list[str]) -> list[_Part]:
    """Every part with its footer read; those of a store behind a URL some at a time, by threads."""
    if all(isinstance(path, Path) for path, _ in paths):
        return [_open(path, expected, columns) for path, expected in paths]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        return list(pool.map(lambda found: _open(found[0], found[1], columns), paths))


def _open(path: AnyPath, expected: FileSum | None, columns: list[str]) -> _Part:
    try:
        source = parquet_source(path)
        check_size(path, source.size if isinstance(source, ObjectFile) else source.stat().st_size, expected)
        part = _Part(
            path, source, pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False), expected
        )
    except FileNotFoundError as error:
        raise damaged(path, "there is no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); prepare the store again") from error
    missing = sorted(set(columns) - set(part.columns))
    if missing:
        raise DataError(f"{path}: columns {missing} are missing; prepare the store again")
    return part


def _read(part: _Part, row_group: int, columns: list[str]) -> pa.Table:
    """From the open file if no other thread reads it: opening it takes a fifth of the time of decoding."""
    if not part.lock.acquire(blocking=False):
        return _decoded(part.source, part.parquet.metadata, row_group, columns)
    try:
        return part.parquet.read_row_group(row_group, columns=columns, use_threads=False)
    finally:
        part.lock.release()


def _decoded(source: Path | ObjectFile, footer: pq.FileMetaData, row_group: int, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(source, metadata=footer, page_checksum_verification=True, pre_buffer=False) as file:
        return file.read_row_group(row_group, columns=columns, use_threads=False)


def _span_of(chunks: list[pq.ColumnChunkMetaData]) -> tuple[int, int]:
    """The bytes [start, end) that hold ``chunks``: they lie side by side, so that one request does."""
    starts = [min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset))) for chunk in chunks]
    ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)]
    return min(starts), max(ends)
