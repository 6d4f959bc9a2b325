"""One file of a log as a scan, by its layout: Parquet as it is typed, text with every column a string."""

import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from configs.errors import DataError
from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.parquet import scan_parquet
from data_pipeline.store.paths import AnyPath

TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
SUFFIXES = (".parquet", *TEXT_SUFFIXES)
COMPRESSED = (".gz", ".zst")
LINE = "raw_line"
"""The line that a row of JSON was read from; the column is kept for the quarantine."""
EXTRA = "raw_extra_field"
"""What a delimited row holds beyond its header."""
_IS_JSON = "raw_is_json"
_ROWS_FOR_NAMES = 1000
_RECORD_SEPARATOR = "\x1e"


@dataclass(kw_only=True, slots=True)
class Scan:
    """Rows of a file, and an expression over them: why a row is broken as a whole, or null."""

    rows: pl.LazyFrame
    broken: pl.Expr


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


def scan_file(path: AnyPath, names: dict[str, str], source: SourceConfig, first_row: int = 0) -> Scan:
    """A scan of ``path`` from ``first_row`` on in which the columns ``names`` (ours -> the log's) can be looked up.

    Raises ``DataError`` for a file of another kind than its layout, and what Polars raises for an unreadable one.
    """
    layout = file_layout_of(path, source)
    if layout is Layout.PARQUET:
        return _scan_parquet(path, names, first_row)
    assert isinstance(path, Path), "text of an object store is read from a local copy"
    scan = _scan_text(path, layout, names, source)
    return Scan(rows=scan.rows.slice(first_row), broken=scan.broken) if first_row else scan


def _scan_text(path: Path, layout: Layout, names: dict[str, str], source: SourceConfig) -> Scan:
    _refuse_other_encodings(path)
    if layout is Layout.JSON_LINES:
        return _scan_json(path, names, source)
    separator = "\t" if source.separator == "tab" or suffix_of(path) == ".tsv" else source.separator
    if len(separator) > 1:
        return _scan_long_separator(path, separator, source.header)
    return _scan_delimited(path, separator, source)


def _scan_parquet(path: AnyPath, names: dict[str, str], first_row: int) -> Scan:
    """As it is typed, but binary columns in use as text: old writers did not say that their strings are strings."""
    rows = scan_parquet(path, first_row)
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


def _refuse_other_encodings(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    kinds = {
        b"\xff\xfe": "UTF-16 text",
        b"\xfe\xff": "UTF-16 text",
        b"PK\x03\x04": "a zip archive",
        b"PAR1": "a Parquet file",
    }
    for magic, kind in kinds.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {kind}; give UTF-8 text, plain or as .gz or .zst, or set data.source.layout")


def _scan_delimited(path: Path, separator: str, source: SourceConfig) -> Scan:
    """Rows of the header's columns as strings; fields beyond it, cut to the first, in ``EXTRA``.

    Bytes that are no UTF-8 become U+FFFD, so that one of them costs a row and not the file.
    """
    has_header, quote = not source.header, source.quote or None
    names = (
        source.header
        or pl.scan_csv(
            path, separator=separator, quote_char=quote, infer_schema=False, encoding="utf8-lossy", glob=False
        )
        .collect_schema()
        .names()
    )
    if any("\r" in name for name in names):
        raise DataError(f"{path} ends its lines with a carriage return alone; write line feeds")
    rows = pl.scan_csv(
        path,
        has_header=has_header,
        separator=separator,
        quote_char=quote,
        schema={**dict.fromkeys(names, pl.String()), EXTRA: pl.String()},
        encoding="utf8-lossy",
        missing_columns="insert",
        extra_columns="ignore",
        truncate_ragged_lines=True,
        raise_if_empty=has_header,
        glob=False,
    )
    return Scan(rows=rows, broken=_has_extra_field())


def _has_extra_field() -> pl.Expr:
    return pl.when(pl.col(EXTRA).is_not_null()).then(pl.lit("too_many_fields"))


def _scan_long_separator(path: Path, separator: str, header: list[str]) -> Scan:
    """Lines cut at a separator of several characters, which no CSV reader knows."""
    lines = _lines(path)
    if not header:
        first = lines.head(1).collect()[LINE].to_list()
        header, lines = (first[0].split(separator) if first else []), lines.slice(1)
    names = [*header, EXTRA]
    fields = pl.col(LINE).str.split_exact(separator, len(header)).struct.rename_fields(names)
    rows = lines.select(fields.alias(LINE)).unnest(LINE)
    return Scan(rows=rows, broken=_has_extra_field())


def _lines(path: Path) -> pl.LazyFrame:
    """The lines of a text file that are not blank, as ``LINE``: as CSV of one column, which streams and unzips.

    A line may begin with the record separator, as those of RFC 7464 do; one that holds it elsewhere ends with it, so
    that it is no JSON.
    """
    rows = pl.scan_csv(
        path,
        has_header=False,
        separator=_RECORD_SEPARATOR,
        quote_char=None,
        schema={LINE: pl.String(), EXTRA: pl.String()},
        encoding="utf8-lossy",
        missing_columns="insert",
        extra_columns="ignore",
        truncate_ragged_lines=True,
        raise_if_empty=False,
        glob=False,
    )
    line, rest = pl.col(LINE), pl.col(EXTRA)
    whole = pl.when(rest.is_null()).then(line).when(line.is_null()).then(rest).otherwise(line + _RECORD_SEPARATOR)
    return rows.select(whole).filter(line.str.strip_chars() != "")


def _scan_json(path: Path, names: dict[str, str], source: SourceConfig) -> Scan:
    lines = _lines(path)
    _check_keys(path, lines.head(_ROWS_FOR_NAMES).collect()[LINE].to_list(), names, source.nested_events)
    inner = [name for key, name in names.items() if key != "user"] if source.nested_events else []
    fields: dict[str, pl.DataType] = {name: pl.String() for name in names.values() if name not in inner}
    if source.nested_events:
        events = pl.List(pl.Struct({name: pl.String() for name in inner}))
        fields[source.nested_events] = events
    dtype = pl.Struct(fields)
    decoded = pl.col(LINE).map_batches(
        lambda series: _decoded(series, dtype), return_dtype=dtype, is_elementwise=True
    )
    rows = lines.with_columns(decoded.alias(_IS_JSON)).with_columns(
        pl.col(_IS_JSON).struct.unnest(), pl.col(_IS_JSON).is_not_null()
    )
    if source.nested_events:
        rows = rows.explode(source.nested_events, empty_as_null=False, keep_nulls=True).unnest(source.nested_events)
    return Scan(rows=rows, broken=pl.when(~pl.col(_IS_JSON)).then(pl.lit("bad_json")))


def _decoded(lines: pl.Series, dtype: pl.Struct) -> pl.Series:
    """The objects of ``lines`` as ``dtype``; null for a line that is no such object, found by halving.

    Polars fails as a whole where one line is broken. One pass costs a third of looking up each key by JSON path.
    """
    if len(lines) == 0:
        return pl.Series([], dtype=dtype)
    try:
        return lines.str.json_decode(dtype)
    except pl.exceptions.PolarsError:
        if len(lines) == 1:
            return pl.Series([None], dtype=dtype)
    half = len(lines) // 2
    return pl.concat([_decoded(lines[:half], dtype), _decoded(lines[half:], dtype)])


def _check_keys(path: Path, lines: list[str], names: dict[str, str], nested: str) -> None:
    """Refuse JSON that is one array, and lines none of which has a key that is needed."""
    if lines and lines[0].lstrip().startswith("["):
        raise DataError(f"{path} holds a JSON array; write one object a line")
    found = [entry for line in lines if isinstance(entry := _json_of(line), dict)]
    keys = dict.fromkeys(key for entry in found for key in entry)
    if nested and found and nested not in keys:
        raise DataError(
            f"{path} has no key {nested!r} (data.source.nested_events); its keys are {', '.join(keys)}; "
            f"set data.source.nested_events to one of them, or to nothing"
        )
    if nested:
        names = {"user": names["user"]}
    for key, name in names.items():
        if found and name not in keys:
            raise missing_column(path, key, name, list(keys))


def missing_column(path: AnyPath, key: str, name: str, there: list[str]) -> DataError:
    """The error of a file that has no column ``name``, which the config's ``key`` asks for."""
    return DataError(
        f"{path} has no column {name!r} ({config_key(key)}); its columns are {', '.join(there)}; "
        f"set {config_key(key)} to one of them"
    )


def config_key(key: str) -> str:
    """What a user sets to name the column that is ours as ``key``."""
    return f"data.{key}.column" if key.startswith("features.") else f"data.columns.{key}"


def _json_of(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
