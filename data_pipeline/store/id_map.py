"""Which row of one store is which row of another: dense ids of two stores, matched by raw id.

N rows here, M rows there.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.errors import DataError
from data_pipeline.store.manifest import Manifest, item_table
from data_pipeline.store.row_groups import RowGroups

UNKNOWN = -1
"""In place of a dense id: the other store does not have the raw id."""


def raw_items(store: str, manifest: Manifest) -> pa.Array:
    """The raw id of each item [N], by dense id."""
    return _one(item_table(store, manifest, ["item", "raw_item"]).sort_by("item").column("raw_item"))


def raw_users(store: str, manifest: Manifest) -> pa.Array:
    """The raw id of each user [N], by dense id; reads one column of all histories."""
    row_groups = RowGroups(store, manifest)
    parts = [row_groups.table(index, ["raw_user"])[0].column("raw_user") for index in range(len(row_groups))]
    return _one(pa.chunked_array([chunk for part in parts for chunk in part.chunks]))


def kinds_of_ids(store: str, manifest: Manifest) -> dict[str, str]:
    """:func:`kind_of_ids` of the store's items and users, of which one row group is read."""
    users, _ = RowGroups(store, manifest).table(0, ["raw_user"])
    return {"item": kind_of_ids(raw_items(store, manifest)), "user": kind_of_ids(_one(users.column("raw_user")))}


def kind_of_ids(raw: pa.Array) -> str:
    """What the raw ids are, in words: ids of two kinds are never the same id."""
    return "whole numbers" if pa.types.is_integer(raw.type) else "texts"


def dense_ids(raw: pa.Array, other: pa.Array) -> np.ndarray:
    """For each of ``raw`` [N] its place in ``other`` [M], or :data:`UNKNOWN`: int64 [N].

    Both are of one :func:`kind_of_ids`, and ``other`` has no id twice; raises :class:`DataError` where they are not.
    """
    if kind_of_ids(raw) != kind_of_ids(other):
        raise DataError(f"ids that are {kind_of_ids(raw)} cannot be found among {kind_of_ids(other)}")
    kind = pa.int64() if pa.types.is_integer(raw.type) else pa.large_string()
    found = pc.index_in(raw.cast(kind), value_set=other.cast(kind))
    return found.fill_null(UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)


def _one(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined
