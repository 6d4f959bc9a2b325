"""Delimited text as a scan of strings: by Polars as the file stands, or block by block where it must be mended."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from configs.schema.source import SourceConfig
from data_pipeline.prepare.read.dialect import Dialect, Wanted, delimited_dialect, lines_dialect
from data_pipeline.prepare.read.quotes import QuoteScanner
from data_pipeline.prepare.read.text_blocks import blocks_of

LINE_COLUMN = "raw_line"
"""The line that a row of JSON was read from; the column is kept for the quarantine."""
EXTRA_FIELD = "raw_extra_field"
"""What a delimited row holds beyond its header."""
_RECORD_SEPARATOR = "\x1e"
WHITESPACE = "whitespace"


def scan_delimited(path: Path, separator: str, source: SourceConfig, time_column: str) -> tuple[pl.LazyFrame, int]:
    """Rows of the header's columns as strings, with fields beyond it, cut to the first, in ``EXTRA_FIELD``; and how
    many records the file has at least.

    Bytes that are no UTF-8 become U+FFFD, so that one of them costs a row and not the file.
    """
    wanted = Wanted(
        separator=separator,
        quote=source.quote,
        escape=source.escape,
        header=tuple(source.header),
        time_column=time_column,
    )
    dialect = delimited_dialect(path, source.encoding, wanted)
    options = {
        "separator": dialect.separator,
        "quote_char": source.quote or None,
        "schema": {**dict.fromkeys(unique_names(dialect.header), pl.String()), EXTRA_FIELD: pl.String()},
    }
    rows = _scan_text(path, dialect, options, source.quote)
    return rows, dialect.num_records


def scan_fields(path: Path, separator: str, source: SourceConfig) -> pl.LazyFrame:
    """Lines cut at a separator of several characters, or at any run of blanks, which no CSV reader knows."""
    lines = scan_lines(path, source)
    line = pl.col(LINE_COLUMN)
    if separator == WHITESPACE:
        separator, line = " ", line.str.strip_chars().str.replace_all(r"\s+", " ")
        lines = lines.select(line)
    header = source.header
    if not header:
        first = lines.head(1).collect()[LINE_COLUMN].to_list()
        header, lines = (first[0].split(separator) if first else []), lines.slice(1)
    names = [*unique_names(header), EXTRA_FIELD]
    fields = pl.col(LINE_COLUMN).str.split_exact(separator, len(header)).struct.rename_fields(names)
    return lines.select(fields.alias(LINE_COLUMN)).unnest(LINE_COLUMN)


def scan_lines(path: Path, source: SourceConfig) -> pl.LazyFrame:
    """The lines of a text file that are not blank, as ``LINE_COLUMN``: as CSV of one column, which streams
    and unzips.

    A line may begin with the record separator, as those of RFC 7464 do; one that holds it elsewhere ends with it, so
    that it is no JSON.
    """
    options = {
        "separator": _RECORD_SEPARATOR,
        "quote_char": None,
        "schema": {LINE_COLUMN: pl.String(), EXTRA_FIELD: pl.String()},
    }
    rows = _scan_text(path, lines_dialect(path, source.encoding), options)
    line, rest = pl.col(LINE_COLUMN), pl.col(EXTRA_FIELD)
    whole = pl.when(rest.is_null()).then(line).when(line.is_null()).then(rest).otherwise(line + _RECORD_SEPARATOR)
    return rows.select(whole).filter(line.str.strip_chars() != "")


def has_extra_field() -> pl.Expr:
    """Why a row of more fields than columns is broken, or null."""
    return pl.when(pl.col(EXTRA_FIELD).is_not_null()).then(pl.lit("too_many_fields"))


def unique_names(header: tuple[str, ...] | list[str]) -> list[str]:
    """``header`` with a number after a name that was there before."""
    seen: dict[str, int] = {}
    names = []
    for name in header:
        names.append(f"{name}_duplicated_{seen[name] - 1}" if seen.get(name) else name)
        seen[name] = seen.get(name, 0) + 1
    return names


def _scan_text(path: Path, dialect: Dialect, options: dict[str, Any], quote: str = "") -> pl.LazyFrame:
    options |= {
        "has_header": False,
        "encoding": "utf8-lossy",
        "missing_columns": "insert",
        "extra_columns": "ignore",
        "truncate_ragged_lines": True,
        "raise_if_empty": False,
        "glob": False,
    }
    if dialect.is_plain:
        return pl.scan_csv(path, skip_lines=dialect.lines_before_rows, **options)

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        """What Polars asks its sources for, by the names that it gives."""
        left = n_rows
        for k, block in enumerate(_records_of(path, dialect, quote)):
            text = io.BytesIO(_unescaped(block, dialect.escape, quote))
            rows = pl.scan_csv(text, skip_lines=0 if k else dialect.lines_before_rows, **options).collect()
            rows = rows if with_columns is None else rows.select(with_columns)
            rows = rows if left is None else rows.head(left)
            left = None if left is None else left - len(rows)
            yield rows if predicate is None else rows.filter(predicate)
            if left == 0:
                return

    return register_io_source(batches, schema=options["schema"])


def _records_of(path: Path, dialect: Dialect, quote: str) -> Iterator[bytes]:
    """Blocks of whole records: one that ends within a quoted field waits for the next."""
    scanner = QuoteScanner(dialect.separator.encode() or b",", quote.encode(), dialect.escape.encode(), 1, None)
    held = list[bytes]()
    for block in blocks_of(path, dialect.encoding, dialect.mends_returns):
        held.append(block)
        scanner.add(block)
        if not scanner.is_open:
            yield b"".join(held)
            held.clear()
    if held:
        yield b"".join(held)


def _unescaped(block: bytes, escape: str, quote: str) -> bytes:
    """Quotes after ``escape`` doubled, as RFC 4180 has them; ``escape`` after itself as one."""
    if not escape or escape.encode() not in block:
        return block
    one, mark = re.escape(escape.encode()), quote.encode()
    doubled = {mark: mark * 2, escape.encode(): escape.encode()}
    return re.sub(one + b"([" + one + re.escape(mark) + b"])", lambda found: doubled[found[1]], block)
