"""Which row of a table is which item or user: as Parquet, and as JSON lines for readers without Arrow."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.store.manifest import Manifest, item_table
from data_pipeline.store.row_groups import RowGroups

ROWS_PER_WRITE = 65_536


def write_items(folder: Path, store: str, manifest: Manifest) -> None:
    """``items.parquet`` (item, raw_item, count) and ``items.jsonl``: line n is the raw id of row n."""
    table = item_table(store, manifest, ["item", "raw_item", "count"])
    parts = (table.slice(start, ROWS_PER_WRITE) for start in range(0, len(table), ROWS_PER_WRITE))
    _write(folder, "items", "raw_item", table.schema, parts)


def write_users(folder: Path, store: str, manifest: Manifest) -> None:
    """``users.parquet`` (user, raw_user) and ``users.jsonl``, a row group of the store at a time."""
    row_groups = RowGroups(store, manifest)
    parts = _user_parts(row_groups)
    first = next(parts)
    _write(folder, "users", "raw_user", first.schema, (part for some in ([first], parts) for part in some))


def _user_parts(row_groups: RowGroups) -> Iterator[pa.Table]:
    for index in range(len(row_groups)):
        table, _ = row_groups.table(index, ["user", "raw_user"])
        yield table.select(["user", "raw_user"])


def _write(folder: Path, name: str, raw: str, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Both files at once, from ``parts`` in the order of their dense ids."""
    plain = pa.schema([(field.name, _plain(field.type)) for field in schema])
    with (
        pq.ParquetWriter(folder / f"{name}.parquet", plain) as writer,
        (folder / f"{name}.jsonl").open("x", encoding="utf-8") as lines,
    ):
        for part in parts:
            writer.write_table(part.cast(plain))
            lines.writelines(f"{json.dumps(value)}\n" for value in part.column(raw).to_pylist())


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type that every reader of Parquet knows."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind
