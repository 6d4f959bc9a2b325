"""The row groups of a store's histories, in order over all its parts: their columns, and what they take up."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from data_pipeline.files import ObjectFile, Place, files_in, parquet_source, place_of

COLUMNS = ["user", "item", "timestamp"]
_FOOTERS_AT_ONCE = 16
"""Of a store behind a URL, where opening a part is two requests and their waits."""


class RowGroups:
    """Reads the footers once. Safe to use from several threads.

    Each read opens its file anew and decodes on its own thread: while threads shared a ``ParquetFile`` that used
    Arrow's threads, pyarrow 26.0.1 was seen to stand still within an epoch of 5,000 row groups. Row groups
    are read one at a time by ``read_row_group``: dataset scanners keep growing in memory.
    """

    def __init__(self, store: str, features: Sequence[str] = ()) -> None:
        """Raises :class:`DataError` for a part that is no Parquet file or lacks one of :attr:`columns`."""
        self.columns = [*COLUMNS, *features]
        """What is read of a history: :data:`COLUMNS` and features."""
        self._paths = files_in(place_of(store) / "histories", "part-*.parquet")
        self._opened = _opened(self._paths, self.columns)
        self._places = [
            (file, row_group)
            for file, (_, parquet) in enumerate(self._opened)
            for row_group in range(parquet.num_row_groups)
        ]

    def __len__(self) -> int:
        return len(self._places)

    def num_users(self, index: int) -> int:
        """Rows of row group ``index``."""
        return int(self._metadata(index).num_rows)

    def table(self, index: int, columns: list[str]) -> tuple[pa.Table, str]:
        """``columns`` of row group ``index``, and where they are from; from an object by one request, and by one more
        where bytes were damaged on their way. Raises :class:`DataError` where it cannot be read."""
        file, row_group = self._places[index]
        shared, parquet = self._opened[file]
        where = f"{self._paths[file]}, row group {row_group}"
        try:
            if isinstance(shared, Path):
                return _decoded(shared, parquet.metadata, row_group, columns), where
            source, span = shared.again(), _span_of(self.chunks(index, columns))
            source.hold(*span)
            try:
                return _decoded(source, parquet.metadata, row_group, columns), where
            except (pa.ArrowInvalid, OSError):
                source.hold(*span)
            return _decoded(source, parquet.metadata, row_group, columns), where
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{where}: cannot be read ({error}); prepare the store again") from error

    def chunks(self, index: int, columns: list[str]) -> dict[str, pq.ColumnChunkMetaData]:
        """What the footer says of ``columns`` in row group ``index``, by column."""
        metadata = self._metadata(index)
        chunks = (metadata.column(column) for column in range(metadata.num_columns))
        return {name: chunk for chunk in chunks if (name := chunk.path_in_schema.split(".")[0]) in columns}

    def num_file_bytes(self, index: int) -> int:
        """Bytes of the chunks of :attr:`columns`, as they lie in the file."""
        return sum(chunk.total_compressed_size for chunk in self.chunks(index, self.columns).values())

    def num_decoded_bytes(self, index: int) -> int:
        """Values of the lists (an empty list counts one) and the offsets."""
        chunks, sizes = self.chunks(index, self.columns), {"INT32": 4, "INT64": 8, "FLOAT": 4}
        lists = (chunks[name] for name in self.columns if name != "user")
        values = sum(chunk.num_values * sizes.get(chunk.physical_type, 8) for chunk in lists)
        return 8 * (self.num_users(index) + 1) + values

    def _metadata(self, index: int) -> pq.RowGroupMetaData:
        file, row_group = self._places[index]
        return self._opened[file][1].metadata.row_group(row_group)


def _opened(paths: list[Place], columns: list[str]) -> list[tuple[Path | ObjectFile, pq.ParquetFile]]:
    """Every part with its footer read; those of a store behind a URL some at a time, by threads."""
    if all(isinstance(path, Path) for path in paths):
        return [_open(path, columns) for path in paths]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        return list(pool.map(lambda path: _open(path, columns), paths))


def _open(path: Place, columns: list[str]) -> tuple[Path | ObjectFile, pq.ParquetFile]:
    try:
        source = parquet_source(path)
        file = pq.ParquetFile(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); prepare the store again") from error
    missing = sorted(set(columns) - set(file.schema_arrow.names))
    if missing:
        raise DataError(f"{path}: columns {missing} are missing; prepare the store again")
    return source, file


def _decoded(source: Path | ObjectFile, footer: pq.FileMetaData, row_group: int, columns: list[str]) -> pa.Table:
    """Checksums are looked at where bytes come over a network."""
    is_remote = isinstance(source, ObjectFile)
    with pq.ParquetFile(source, metadata=footer, page_checksum_verification=is_remote) as file:
        return file.read_row_group(row_group, columns=columns, use_threads=False)


def _span_of(chunks: dict[str, pq.ColumnChunkMetaData]) -> tuple[int, int]:
    """The bytes [start, end) that hold ``chunks``: they lie side by side, so that one request does."""
    starts = [min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset))) for chunk in chunks.values()]
    ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks.values(), strict=True)]
    return min(starts), max(ends)
