"""Raw ids of the users of a store, read a row group at a time."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from data_pipeline.store.id_map import UNKNOWN, dense_ids
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.row_groups import RowGroups

RAW_USER = "raw_user"


class RawUsers:
    """From dense ids to raw ones and back; holds one row group's."""

    def __init__(self, store: str, manifest: Manifest) -> None:
        self._row_groups = RowGroups(store, manifest)
        sizes = [self._row_groups.num_users(index) for index in range(len(self._row_groups))]
        self._first_users = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._held: tuple[int, pl.Series] = (-1, pl.Series(RAW_USER, [], dtype=pl.Int64))

    @property
    def dtype(self) -> pl.DataType:
        """``Int64`` or ``String``."""
        return self._row_group(0).dtype if len(self._row_groups) else pl.Int64()

    def raw_of(self, users: np.ndarray) -> pl.Series:
        """The raw ids of dense ``users`` [B]; ascending ones cost one look at each row group."""
        index = np.searchsorted(self._first_users, users, side="right") - 1
        cuts = np.flatnonzero(np.diff(index)) + 1
        parts = [
            self._row_group(int(index[start])).gather(users[start:end] - self._first_users[index[start]])
            for start, end in zip([0, *cuts], [*cuts, len(users)], strict=True)
            if end > start
        ]
        return pl.concat(parts) if parts else pl.Series(RAW_USER, [], dtype=self.dtype)

    def dense_of(self, raw: pl.Series) -> np.ndarray:
        """The dense ids of ``raw`` [B], -1 for one that no user of the store has: int64."""
        asked, found = raw.to_arrow(), np.full(len(raw), UNKNOWN, dtype=np.int64)
        for first, here in self._all():
            place = dense_ids(asked, here.to_arrow())
            found = np.where(place >= 0, first + place, found)
        return found

    def _all(self) -> Iterator[tuple[int, pl.Series]]:
        for index in range(len(self._row_groups)):
            yield int(self._first_users[index]), self._row_group(index)

    def _row_group(self, index: int) -> pl.Series:
        if self._held[0] != index:
            table, _ = self._row_groups.table(index, [RAW_USER])
            self._held = (index, raw_ids_of(table.column(RAW_USER)))
        return self._held[1]


def raw_ids_of(column: pa.ChunkedArray) -> pl.Series:
    """A store's column of raw ids: int64, or strings."""
    found = pl.from_arrow(column)
    assert isinstance(found, pl.Series), "a column is a series"
    return found if found.dtype == pl.Int64 else found.cast(pl.String)
