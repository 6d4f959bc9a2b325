"""Histories of a range of users, read from the row groups of a store that hold them."""

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from data_pipeline.files import ObjectFile, Place, files_in, parquet_source, place_of
from data_pipeline.manifest import Manifest

COLUMNS = ["user", "item", "timestamp"]
CACHE_BYTES = 64 * 2**20
"""Decoded row groups that are kept: lanes of a small store share them, and each would be decoded once a lane."""
_FOOTERS_AT_ONCE = 16
"""Of a store behind a URL, where opening a part is two requests and their waits."""


@dataclass(slots=True)
class Histories:
    """Events of users ``first_user`` ... ``first_user + B - 1``, end to end, each user's oldest event first."""

    first_user: int
    offsets: np.ndarray
    """int64 [B + 1], from 0."""
    item: np.ndarray
    """int32 or int64 [T]."""
    timestamp: np.ndarray
    """ms, int64 [T]."""

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return self.offsets.nbytes + self.item.nbytes + self.timestamp.nbytes


class HistoryReader:
    """Reads any range of users; opens the footers once and holds the last ``CACHE_BYTES`` of decoded events.

    Row groups are read one at a time by ``ParquetFile.read_row_group``: dataset scanners keep growing in memory.
    """

    def __init__(self, store: str, manifest: Manifest) -> None:
        self._num_items = manifest.num_items
        self._files: list[pq.ParquetFile] = []
        self._paths: list[Place] = files_in(place_of(store) / "histories", "part-*.parquet")
        self._objects: list[ObjectFile | None] = []
        self._row_groups: list[tuple[int, int]] = []
        self._decoded: OrderedDict[int, Histories] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        sizes: list[int] = []
        for source, file in _opened(self._paths):
            self._objects.append(source if isinstance(source, ObjectFile) else None)
            self._add(file, sizes)
        self._first_users = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        if self._first_users[-1] != manifest.num_users:
            raise DataError(
                f"{store}/histories holds {self._first_users[-1]} users, manifest.json says {manifest.num_users}; "
                f"prepare the store again"
            )

    def read(self, start: int, end: int) -> Histories:
        """Histories of users [start, end); raises :class:`DataError` where a row group is broken."""
        first = int(np.searchsorted(self._first_users, start, side="right")) - 1
        last = int(np.searchsorted(self._first_users, end, side="left"))
        return _joined([_sliced(self._row_group(index), start, end) for index in range(first, last)], start)

    def _add(self, file: pq.ParquetFile, sizes: list[int]) -> None:
        for row_group in range(file.num_row_groups):
            sizes.append(file.metadata.row_group(row_group).num_rows)
            self._row_groups.append((len(self._files), row_group))
        self._files.append(file)

    def _row_group(self, index: int) -> Histories:
        """Row group ``index`` of all files; the least recently used ones leave the cache, the newest stays."""
        with self._lock:
            if index in self._decoded:
                self._decoded.move_to_end(index)
                return self._decoded[index]
            histories = self._decoded[index] = self._read(index)
            self._num_bytes += histories.num_bytes
            while self._num_bytes > CACHE_BYTES and len(self._decoded) > 1:
                self._num_bytes -= self._decoded.popitem(last=False)[1].num_bytes
            return histories

    def _read(self, index: int) -> Histories:
        file, row_group = self._row_groups[index]
        where = f"{self._paths[file]}, row group {row_group}"
        try:
            table = self._table(file, row_group)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{where}: cannot be read ({error}); prepare the store again") from error
        first_user = int(self._first_users[index])
        histories = _decoded(table, first_user, where)
        _check(histories, self._num_items, where)
        return histories

    def _table(self, file: int, row_group: int) -> pa.Table:
        """Decoded; from an object by one request, and by one more where bytes were damaged on their way."""
        parquet, source = self._files[file], self._objects[file]
        if source is not None:
            span = _span_of(parquet.metadata.row_group(row_group))
            source.hold(*span)
            try:
                return parquet.read_row_group(row_group, columns=COLUMNS)
            except (pa.ArrowInvalid, OSError):
                source.hold(*span)
        return parquet.read_row_group(row_group, columns=COLUMNS)


def _opened(paths: list[Place]) -> list[tuple[Path | ObjectFile, pq.ParquetFile]]:
    """Every part with its footer read; those of a store behind a URL some at a time, by threads."""
    if all(isinstance(path, Path) for path in paths):
        return [_open(path) for path in paths]
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        return list(pool.map(_open, paths))


def _open(path: Place) -> tuple[Path | ObjectFile, pq.ParquetFile]:
    try:
        source = parquet_source(path)
        file = pq.ParquetFile(source, page_checksum_verification=isinstance(source, ObjectFile))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); prepare the store again") from error
    missing = sorted(set(COLUMNS) - set(file.schema_arrow.names))
    if missing:
        raise DataError(f"{path}: columns {missing} are missing; prepare the store again")
    return source, file


def _span_of(row_group: pq.RowGroupMetaData) -> tuple[int, int]:
    """The bytes [start, end) that hold the chunks of ``COLUMNS``: they lie side by side, so that one request does."""
    chunks = [row_group.column(k) for k in range(row_group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] in COLUMNS]
    starts = [min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset))) for chunk in chunks]
    ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)]
    return min(starts), max(ends)


def _decoded(table: pa.Table, first_user: int, where: str) -> Histories:
    user = _column(table, "user", where).to_numpy()
    if not np.array_equal(user, np.arange(first_user, first_user + len(user))):
        raise DataError(f"{where}: users must be {first_user}, {first_user + 1}, ...; prepare the store again")
    item, timestamp = _column(table, "item", where), _column(table, "timestamp", where)
    offsets = item.offsets.to_numpy()
    if not np.array_equal(offsets, timestamp.offsets.to_numpy()):
        raise DataError(f"{where}: a user has as many items as timestamps; prepare the store again")
    low, high = int(offsets[0]), int(offsets[-1])
    return Histories(
        first_user,
        offsets.astype(np.int64) - low,
        item.values.slice(low, high - low).to_numpy(),
        timestamp.values.slice(low, high - low).to_numpy(),
    )


def _column(table: pa.Table, name: str, where: str) -> pa.Array:
    column = table.column(name)
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    is_list = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    num_nulls = array.null_count + (array.values.null_count if is_list else 0)
    if num_nulls:
        raise DataError(f"{where}: {name} is null in {num_nulls} places; prepare the store again")
    return array


def _check(histories: Histories, num_items: int, where: str) -> None:
    item, timestamp = histories.item, histories.timestamp
    if len(item) and (item.min() < 0 or item.max() >= num_items):
        raise DataError(
            f"{where}: item ids from {item.min()} to {item.max()} must lie in [0, {num_items}), the items of "
            f"manifest.json; prepare the store again"
        )
    goes_back = timestamp[1:] < timestamp[:-1]
    starts = histories.offsets[1:-1]
    goes_back[starts[(starts > 0) & (starts < len(timestamp))] - 1] = False
    if goes_back.any():
        raise DataError(
            f"{where}: {int(goes_back.sum())} events lie before their predecessor; prepare the store again"
        )


def _sliced(histories: Histories, start: int, end: int) -> Histories:
    """The users of ``histories`` that lie in [start, end)."""
    first = max(start, histories.first_user)
    low, high = first - histories.first_user, max(end - histories.first_user, 0)
    offsets = histories.offsets[low : high + 1]
    events = slice(offsets[0], offsets[-1])
    return Histories(first, offsets - offsets[0], histories.item[events], histories.timestamp[events])


def _joined(parts: list[Histories], start: int) -> Histories:
    if len(parts) == 1:
        return parts[0]
    lengths = [np.diff(part.offsets) for part in parts]
    return Histories(
        start,
        np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
    )
