"""Histories of a range of users, read from the row groups of a store that hold them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from configs.errors import DataError
from data_pipeline.store.features import StoredFeature, chosen_features
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.row_groups import RowGroups

CACHE_BYTES = 64 * 2**20
"""Decoded row groups that are kept, of those that were asked for in part: the next reader may want the rest."""

CHUNK_USERS = 16_384
"""Users of a chunk, for those who read all histories once."""

FeatureDtype = type[np.int64] | type[np.float32]
"""Of a feature in a batch: codes or numbers."""


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
    features: dict[str, np.ndarray] = field(default_factory=dict)
    """By name, codes int32 [T] or numbers float32 [T]."""

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(a.nbytes for a in (self.offsets, self.item, self.timestamp, *self.features.values()))


class HistoryReader:
    """Reads any range of users; holds the last ``CACHE_BYTES`` of the row groups that it was asked for in part.

    Safe to use from several threads, which decode different row groups at the same time.
    """

    def __init__(self, store: str, manifest: Manifest, features: Sequence[str] | None = ()) -> None:
        """Reads ``features`` of each event too, all of the store's for None; ConfigError for one it does not have."""
        self._num_items = manifest.num_items
        self._features = chosen_features(store, manifest.features, features)
        self._row_groups = RowGroups(store, manifest, list(self._features))
        self._decoded: OrderedDict[int, Histories] = OrderedDict()
        self._num_bytes = 0
        self._num_bytes_read = 0
        self._in_flight: set[int] = set()
        self._waited_for: set[int] = set()
        self._changed = threading.Condition()
        sizes = [self._row_groups.num_users(index) for index in range(len(self._row_groups))]
        self._first_users = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        if self._first_users[-1] != manifest.num_users:
            self._row_groups.check()
            raise DataError(
                f"{store}/histories holds {self._first_users[-1]} users, manifest.json says {manifest.num_users}; "
                f"prepare the store again"
            )

    def read(self, start: int, end: int) -> Histories:
        """Histories of users [start, end); raises :class:`DataError` where a row group is broken."""
        parts = [_sliced(self._row_group(index, start, end), start, end) for index in self._indices(start, end)]
        return _joined(parts, start)

    def times(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Offsets [B + 1] from 0 and timestamps [T] of every row group in order; no other column is read or kept."""
        for index in range(len(self._row_groups)):
            table, where = self._row_groups.table(index, ["timestamp"])
            column = _column(table, "timestamp", where)
            offsets = column.offsets.to_numpy().astype(np.int64)
            yield offsets - offsets[0], column.values.slice(offsets[0], offsets[-1] - offsets[0]).to_numpy()

    @property
    def feature_types(self) -> dict[str, FeatureDtype]:
        """The features that are read, by name."""
        return {name: np.int64 if feature.num_codes else np.float32 for name, feature in self._features.items()}

    @property
    def num_bytes_read(self) -> int:
        """Bytes of column chunks read by :meth:`read`, as they lie in the files; a chunk read twice counts twice."""
        return self._num_bytes_read

    def num_bytes_needed(self, start: int, end: int) -> float:
        """What users [start, end) take up in the files: of each row group their share, by the number of users."""
        return sum(
            self._row_groups.num_file_bytes(index) * self._share(index, start, end)
            for index in self._indices(start, end)
        )

    def num_bytes_decoded(self, start: int, end: int) -> int:
        """At least the memory of the row groups that :meth:`read` decodes for [start, end), from the footers."""
        return sum(self._row_groups.num_decoded_bytes(index) for index in self._indices(start, end))

    def num_bytes_at_most(self, start: int, end: int) -> int:
        """Memory of :meth:`read` for [start, end): the row groups, and of several row groups the parts joined."""
        decoded = self.num_bytes_decoded(start, end)
        return decoded if len(self._indices(start, end)) == 1 else 2 * decoded

    def num_events_bound(self, start: int, end: int) -> int:
        """At least the events of users [start, end): those of the row groups that hold them, from the footers."""
        return sum(self._row_groups.num_events(index) for index in self._indices(start, end))

    def _indices(self, start: int, end: int) -> range:
        first = int(np.searchsorted(self._first_users, start, side="right")) - 1
        return range(first, int(np.searchsorted(self._first_users, end, side="left")))

    def _share(self, index: int, start: int, end: int) -> float:
        low, high = int(self._first_users[index]), int(self._first_users[index + 1])
        return (min(end, high) - max(start, low)) / max(high - low, 1)

    def _row_group(self, index: int, start: int, end: int) -> Histories:
        """Row group ``index`` of all files, of which users [start, end) are wanted; threads that want some of it at
        the same time get it from one decoding."""
        with self._changed:
            if index in self._in_flight:
                self._waited_for.add(index)
                self._changed.wait_for(lambda: index not in self._in_flight)
            if index in self._decoded:
                self._decoded.move_to_end(index)
                return self._decoded[index]
            self._in_flight.add(index)
        try:
            histories = self._read(index)
            with self._changed:
                self._num_bytes_read += self._row_groups.num_file_bytes(index)
                is_part = start > self._first_users[index] or end < self._first_users[index + 1]
                if is_part or index in self._waited_for:
                    self._keep(index, histories)
        finally:
            with self._changed:
                self._in_flight.remove(index)
                self._waited_for.discard(index)
                self._changed.notify_all()
        return histories

    def _keep(self, index: int, histories: Histories) -> None:
        """Hold a row group; the least recently used ones leave, the newest stays. What is kept for nobody would cost
        more than its bytes: memory that the next row group is decoded into faster than into new pages."""
        self._decoded[index] = histories
        self._num_bytes += histories.num_bytes
        while self._num_bytes > CACHE_BYTES and len(self._decoded) > 1:
            self._num_bytes -= self._decoded.popitem(last=False)[1].num_bytes

    def _read(self, index: int) -> Histories:
        table, where = self._row_groups.table(index, self._row_groups.columns)
        histories = _decoded(table, int(self._first_users[index]), where, self._features)
        _check(histories, self._num_items, where)
        _check_features(histories, self._features, where)
        return histories


def _decoded(table: pa.Table, first_user: int, where: str, features: dict[str, StoredFeature]) -> Histories:
    user = _column(table, "user", where).to_numpy()
    if not np.array_equal(user, np.arange(first_user, first_user + len(user))):
        raise DataError(f"{where}: users must be {first_user}, {first_user + 1}, ...; prepare the store again")
    item, timestamp = _column(table, "item", where), _column(table, "timestamp", where)
    offsets = item.offsets.to_numpy()
    if not np.array_equal(offsets, timestamp.offsets.to_numpy()):
        raise DataError(f"{where}: a user has as many items as timestamps; prepare the store again")
    more = {name: _column(table, name, where) for name in features}
    for name, column in more.items():
        if not np.array_equal(offsets, column.offsets.to_numpy()):
            raise DataError(f"{where}: a user has as many items as values of {name}; prepare the store again")
    low, high = int(offsets[0]), int(offsets[-1])
    return Histories(
        first_user,
        offsets.astype(np.int64) - low,
        item.values.slice(low, high - low).to_numpy(),
        timestamp.values.slice(low, high - low).to_numpy(),
        {name: column.values.slice(low, high - low).to_numpy() for name, column in more.items()},
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
            f"{where}: {int(goes_back.sum())} events come before their predecessor; prepare the store again"
        )


def _check_features(histories: Histories, features: dict[str, StoredFeature], where: str) -> None:
    for name, feature in features.items():
        values, num_codes = histories.features[name], feature.num_codes
        if values.dtype != (np.int32 if num_codes else np.float32):
            raise DataError(f"{where}: {name} holds {values.dtype}; prepare the store again")
        if num_codes and len(values) and (values.min() < 0 or values.max() >= num_codes):
            raise DataError(
                f"{where}: codes of {name} from {values.min()} to {values.max()} must lie in [0, {num_codes}), those "
                f"of manifest.json; prepare the store again"
            )


def _sliced(histories: Histories, start: int, end: int) -> Histories:
    """The users of ``histories`` that lie in [start, end)."""
    first = max(start, histories.first_user)
    low, high = first - histories.first_user, max(end - histories.first_user, 0)
    offsets = histories.offsets[low : high + 1]
    events = slice(offsets[0], offsets[-1])
    features = {name: values[events] for name, values in histories.features.items()}
    return Histories(first, offsets - offsets[0], histories.item[events], histories.timestamp[events], features)


def _joined(parts: list[Histories], start: int) -> Histories:
    if len(parts) == 1:
        return parts[0]
    lengths = [np.diff(part.offsets) for part in parts]
    return Histories(
        start,
        np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.timestamp for part in parts]),
        {name: np.concatenate([part.features[name] for part in parts]) for name in parts[0].features},
    )


def history_chunks(
    store: str,
    manifest: Manifest,
    on_chunk: Callable[[], None] = lambda: None,
    part: int = 0,
    num_parts: int = 1,
    features: Sequence[str] = (),
) -> Iterator[Histories]:
    """The histories of one ``part`` of ``num_parts`` of the users, in their order, with ``features``; ``on_chunk`` is
    called before each read, and may raise. Raises :class:`DataError` where a row group is broken."""
    reader = HistoryReader(store, manifest, features)
    first, end = (manifest.num_users * each // num_parts for each in (part, part + 1))
    for start in range(first, end, CHUNK_USERS):
        on_chunk()
        yield reader.read(start, min(start + CHUNK_USERS, end))
