"""Write the parts of a store, and put a finished store in its place in one step."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError

USERS_PER_ROW_GROUP = 1024
ROW_GROUPS_PER_PART = 256


class HistoryWriter:
    """Writes ``histories/part-*.parquet``: full row groups of users, cut by dense id alone, never by memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pending: pa.Table | None = None
        self._writer: pq.ParquetWriter | None = None
        self._num_row_groups = 0
        self.num_users = 0
        folder.mkdir()

    def append(self, raw_users: pl.Series, lengths: np.ndarray, items: pl.Series, times: pl.Series) -> None:
        """Add users [B] with history ``lengths`` [B], and their events' dense ``items`` [T] and ``times`` [T]."""
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
        if self._writer is not None:
            self._writer.close()

    def _write_row_group(self, table: pa.Table) -> None:
        if self._num_row_groups % ROW_GROUPS_PER_PART == 0:
            if self._writer is not None:
                self._writer.close()
            part = self._folder / f"part-{self._num_row_groups // ROW_GROUPS_PER_PART:05d}.parquet"
            self._writer = pq.ParquetWriter(part, table.schema, compression="zstd")
        assert self._writer is not None, "the first row group opens a part"
        self._writer.write_table(table, row_group_size=USERS_PER_ROW_GROUP)
        self._num_row_groups += 1


@contextmanager
def new_store(store: Path) -> Iterator[Path]:
    """A folder to fill; it becomes ``store`` when the block ends well, and vanishes when it does not."""
    partial = store.with_name(f"{store.name}.partial-{os.getpid()}")
    try:
        if store.exists() and not (store.is_dir() and (_is_store(store) or not any(store.iterdir()))):
            raise DataError(f"data.store={store} exists and is no store; choose another folder or remove it")
        partial.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"data.store={store} cannot be written: {error.strerror}: {error.filename}") from error
    try:
        yield partial
        _replace(store, partial)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"data.store={store} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_store(folder: Path) -> bool:
    return (folder / "manifest.json").is_file()


def _replace(store: Path, partial: Path) -> None:
    if not store.exists():
        partial.rename(store)
        return
    old = store.with_name(f"{store.name}.old-{os.getpid()}")
    store.rename(old)
    partial.rename(store)
    shutil.rmtree(old)
