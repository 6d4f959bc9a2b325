"""One file of a log as a scan, by its layout: Parquet as it is typed, text with every column a string."""

from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.delimited import has_extra_field, scan_delimited, scan_fields
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.history_lines import scan_history_lines
from data_pipeline.prepare.read.json_lines import scan_json
from data_pipeline.prepare.read.parquet import field_ids_of, scan_parquet
from data_pipeline.store.paths import AnyPath

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
SUFFIXES = (".parquet", *TEXT_SUFFIXES)
COMPRESSED = (".gz", ".zst")


@dataclass(kw_only=True, slots=True)
class Scan:
    """Rows of a file, and an expression over them: why a row is broken as a whole, or null."""

    rows: pl.LazyFrame
    broken: pl.Expr
    num_records: int = 0
    """Rows that ``rows`` must give at least, where they were counted in another way."""


def suffix_of(path: AnyPath) -> str:
    """The ending that tells the layout: lower case, without that of a compression."""
    name = path.name.lower()
    for compressed in COMPRESSED:
        name = name.removesuffix(compressed)
    return Path(name).suffix


def file_layout_of(path: AnyPath, source: SourceConfig) -> Layout:
    """``source.layout``, or what the ending of ``path`` says; ``AUTO`` where it says nothing."""
    if source.layout is not Layout.AUTO:
        return source.layout
    by_suffix = {".parquet": Layout.PARQUET, ".csv": Layout.DELIMITED, ".tsv": Layout.DELIMITED}
    by_suffix |= dict.fromkeys((".jsonl", ".ndjson", ".json"), Layout.JSON_LINES)
    return by_suffix.get(suffix_of(path), Layout.AUTO)


def scan_file(
    path: AnyPath, names: dict[str, str], source: SourceConfig, first_row: int = 0, view: FileView | None = None
) -> Scan:
    """A scan of ``path`` from ``first_row`` on in which the columns ``names`` (ours -> the log's) can be looked up.

    Raises ``DataError`` for a file of another kind than its layout, and what Polars raises for an unreadable one.
    """
    layout, view = file_layout_of(path, source), view or FileView()
    if layout is Layout.PARQUET:
        return _scan_parquet(path, names, first_row, view)
    assert isinstance(path, Path), "text of an object store is read from a local copy"
    is_json = layout is Layout.JSON_LINES
    in_file = {key: name for key, name in names.items() if not (is_json and name in view.constants)}
    scan = _scan_text(path, layout, in_file, source)
    rows = view.as_columns(scan.rows, set(names.values()), {})
    return replace(scan, rows=rows.slice(first_row) if first_row else rows)


def _scan_text(path: Path, layout: Layout, names: dict[str, str], source: SourceConfig) -> Scan:
    if layout is Layout.JSON_LINES:
        rows, broken = scan_json(path, names, source)
        return Scan(rows=rows, broken=broken)
    separator = "tab" if suffix_of(path) == ".tsv" or source.separator == "\\t" else source.separator
    if layout is Layout.HISTORY_LINES:
        rows = scan_history_lines(path, separator, names, source)
        return Scan(rows=rows, broken=pl.lit(None, pl.String))
    separator = "\t" if separator == "tab" else separator
    if len(separator.encode()) > 1:
        return Scan(rows=scan_fields(path, separator, source), broken=has_extra_field())
    rows, num_records = scan_delimited(path, separator, source, names.get("timestamp", ""))
    return Scan(rows=rows, broken=has_extra_field(), num_records=num_records)


def _scan_parquet(path: AnyPath, names: dict[str, str], first_row: int, view: FileView) -> Scan:
    """As it is typed, but binary columns in use as text: old writers did not say that their strings are strings."""
    rows = scan_parquet(path, first_row, view)
    rows = view.as_columns(rows, set(names.values()), field_ids_of(path) if view.field_ids else {})
    schema = rows.collect_schema()
    binary = [name for name in dict.fromkeys(names.values()) if schema.get(name) == pl.Binary]
    text = [pl.col(name).map_batches(_text_of, return_dtype=pl.String(), is_elementwise=True) for name in binary]
    return Scan(rows=rows.with_columns(text), broken=pl.lit(None, pl.String))


def _text_of(binary: pl.Series) -> pl.Series:
    """``binary`` as UTF-8, with U+FFFD for what is none."""
    try:
        return binary.cast(pl.String)
    except pl.exceptions.PolarsError:
        text = [None if value is None else value.decode(errors="replace") for value in binary]
        return pl.Series(binary.name, text, dtype=pl.String)
