"""What a file is beyond its name and bytes: how its content was recognised, and what a table says of it."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from configs.schema.source import Layout, SourceConfig


@dataclass(kw_only=True, slots=True, eq=False)
class FileView:
    """How one file is read; the default reads it by its name, as it is."""

    layout: Layout | None = None
    """What the content is, where the name does not say."""
    separator: str = ""
    """Of delimited content, where it is not ``data.source.separator``."""
    compression: str = ""
    """By which the whole file must be unpacked first: bz2, lz4, xz, gzip or zstd."""
    constants: dict[str, str | None] = field(default_factory=dict)
    """Columns that are no part of the file: values of the folders that it lies in, such as ``dt=2024-01-31``."""
    physical: dict[str, str] = field(default_factory=dict)
    """A table's columns that the file has under another name."""
    field_ids: dict[str, int] = field(default_factory=dict)
    """A table's columns by the ids of the file's fields; empty: by name."""
    columns: list[str] = field(default_factory=list)
    """All columns of the table: one that the file lacks is null. Empty: the file is no table's."""
    deleted: np.ndarray | None = None
    """Rows that no longer count, by place, ascending, int64."""

    def source(self, source: SourceConfig) -> SourceConfig:
        """``source`` as it holds for this file."""
        if self.layout is None:
            return source
        return replace(source, layout=self.layout, separator=self.separator or source.separator)

    @property
    def digest(self) -> str:
        """Of what was deleted, by which two versions of a table are compared; empty where nothing was."""
        if self.deleted is None or not self.has_deleted:
            return ""
        return hashlib.sha256(self.deleted.tobytes()).hexdigest()[:16]

    @property
    def has_deleted(self) -> bool:
        """Whether rows no longer count."""
        return self.deleted is not None and len(self.deleted) > 0

    @property
    def num_deleted(self) -> int:
        """Rows that no longer count."""
        return 0 if self.deleted is None else len(self.deleted)

    def place_of(self, row: int) -> int:
        """Where the ``row``-th of the rows that count lies in the file."""
        if self.deleted is None or not len(self.deleted):
            return row
        num_counted_before = self.deleted - np.arange(len(self.deleted))
        return row + int(np.searchsorted(num_counted_before, row, side="right"))

    def as_columns(self, rows: pl.LazyFrame, names: set[str], field_ids: dict[int, str]) -> pl.LazyFrame:
        """``rows`` of the file with the columns ``names`` as the table has them; ``field_ids`` are the file's own."""
        there = rows.collect_schema().names()
        changed: dict[str, pl.Expr] = {}
        gone = []
        for name in sorted(names):
            if self.field_ids and field_ids:
                found = field_ids.get(self.field_ids.get(name, -1))
            else:
                found = self.physical.get(name, name)
            if found in there:
                changed |= {name: pl.col(found)} if found != name else {}
            elif name in self.constants:
                changed[name] = pl.lit(self.constants[name], dtype=pl.String)
            elif name in self.columns:
                changed[name] = pl.lit(None)
            elif self.columns and name in there:
                gone.append(name)
        return rows.with_columns(**changed).drop(gone) if changed or gone else rows
