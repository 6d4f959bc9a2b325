"""Write the parts of a store, each in its place only when it is whole."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

USERS_PER_ROW_GROUP = 1024
ROW_GROUPS_PER_PART = 256
USERS_PER_PART = USERS_PER_ROW_GROUP * ROW_GROUPS_PER_PART


class HistoryWriter:
    """Writes ``histories/part-*.parquet``: full row groups of users, cut by dense id alone, never by memory.

    Goes on after the parts that ``folder`` holds, or after ``first_user`` users, a multiple of ``USERS_PER_PART``,
    that others write. Ids and times are stored without a dictionary: few of them are alike within a row group, and a
    bare column is written and read faster, and is smaller. Pages have checksums, which are verified at every read.
    Features follow as lists, encoded and raw; raw strings have a dictionary.
    """

    def __init__(self, folder: Path, first_user: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._pending: pa.Table | None = None
        self._writer: pq.ParquetWriter | None = None
        self.whole_parts = sorted(folder.glob("part-*.parquet"))
        self.num_users = first_user + sum(pq.read_metadata(part).num_rows for part in self.whole_parts)
        self._num_row_groups = -(-self.num_users // USERS_PER_ROW_GROUP)

    def append(
        self,
        raw_users: pl.Series,
        lengths: np.ndarray,
        items: pl.Series,
        times: pl.Series,
        more: dict[str, pl.Series] | None = None,
    ) -> None:
        """Add users [B] with history ``lengths`` [B], and their events' dense ``items`` [T] and ``times`` [T], and
        ``more`` columns [T] by name."""
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        dense = np.arange(self.num_users, self.num_users + len(raw_users), dtype=np.int64)
        self.num_users += len(raw_users)
        raw = raw_users.to_arrow()
        table = pa.table(
            {
                "raw_user": raw.cast(pa.string()) if raw_users.dtype == pl.String else raw,
                "user": pa.array(dense),
                "item": pa.ListArray.from_arrays(offsets, items.cast(pl.Int32).to_arrow()),
                "timestamp": pa.ListArray.from_arrays(offsets, times.to_arrow()),
                **{
                    name: pa.ListArray.from_arrays(offsets, _arrow_of(values))
                    for name, values in (more or {}).items()
                },
            }
        )
        whole = table if self._pending is None else pa.concat_tables([self._pending, table])
        num_full = len(whole) // USERS_PER_ROW_GROUP
        for k in range(num_full):
            self._write_row_group(whole.slice(k * USERS_PER_ROW_GROUP, USERS_PER_ROW_GROUP))
        self._pending = whole.slice(num_full * USERS_PER_ROW_GROUP).combine_chunks()

    def close(self) -> None:
        """Write what is left, as the last and smaller row group."""
        if self._pending is not None and len(self._pending):
            self._write_row_group(self._pending)
        self._close_part()

    def _write_row_group(self, table: pa.Table) -> None:
        if self._writer is None:
            partial = self._folder / "growing.parquet"
            strings = [f"{field.name}.list.element" for field in table.schema if _is_list_of_strings(field.type)]
            options = {"compression": "zstd", "use_dictionary": strings or False, "write_page_checksum": True}
            self._writer = pq.ParquetWriter(partial, table.schema, **options)
        self._writer.write_table(table, row_group_size=USERS_PER_ROW_GROUP)
        self._num_row_groups += 1
        if self._num_row_groups % ROW_GROUPS_PER_PART == 0:
            self._close_part()

    def _close_part(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
        part = (self._num_row_groups - 1) // ROW_GROUPS_PER_PART
        (self._folder / "growing.parquet").replace(self._folder / f"part-{part:05d}.parquet")


def _arrow_of(values: pl.Series) -> pa.Array:
    return values.to_arrow().cast(pa.string()) if values.dtype == pl.String else values.to_arrow()


def _is_list_of_strings(dtype: pa.DataType) -> bool:
    return pa.types.is_list(dtype) and pa.types.is_string(dtype.value_type)
