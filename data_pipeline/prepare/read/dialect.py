"""How a text file is written, found by looking at all of it: encoding, line ends, quotes, and number of rows."""

import csv
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from configs.errors import DataError
from data_pipeline.prepare.read.quotes import Fault, QuoteScanner
from data_pipeline.prepare.read.text_blocks import blocks_of, encoding_of, num_lone_returns

BACKSLASH = "\\"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the configuration says of a delimited file; ``separator`` is one byte."""

    separator: str
    quote: str = ""
    escape: str = ""
    """``auto``: a backslash where the file cannot be read without."""
    header: tuple[str, ...] = ()
    time_column: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How a text file is written."""

    encoding: str = "utf-8"
    mends_returns: bool = False
    """Carriage returns stand alone at the ends of lines."""
    escape: str = ""
    separator: str = ""
    lines_before_rows: int = 0
    """The header, what is blank before it, and ``sep=;`` where a spreadsheet wrote that first."""
    header: tuple[str, ...] = ()
    """Names of the columns, by the configuration or by the file's first line."""
    records_before_rows: int = 0
    """Those of these lines that are not blank."""
    num_records: int = 0
    """Rows, blank lines and the header left out: the reader must give no fewer."""

    @property
    def is_plain(self) -> bool:
        """Whether Polars reads the file itself as it is."""
        return self.encoding == "utf-8" and not self.mends_returns and not self.escape


def lines_dialect(path: Path, encoding: str) -> Dialect:
    """Of a file of lines without quotes: JSON, or fields cut at blanks or at several characters."""
    status = path.stat()
    return _lines_dialect(path, encoding, status.st_size, status.st_mtime_ns)


def delimited_dialect(path: Path, encoding: str, wanted: Wanted) -> Dialect:
    """Of a delimited file. Raises :class:`DataError` where its quotes do not say where a row ends."""
    status = path.stat()
    return _delimited_dialect(path, encoding, wanted, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _lines_dialect(path: Path, encoding: str, _num_bytes: int, _changed: int) -> Dialect:
    """By the file's size and time of change too, so that a file that is opened again is not looked at again."""
    found = encoding_of(path, encoding)
    return Dialect(encoding=found, mends_returns=any(map(num_lone_returns, blocks_of(path, found))))


@lru_cache(maxsize=4096)
def _delimited_dialect(path: Path, encoding: str, wanted: Wanted, _num_bytes: int, _changed: int) -> Dialect:
    dialect = _with_header(path, Dialect(encoding=encoding_of(path, encoding), separator=wanted.separator), wanted)
    escape = "" if wanted.escape == "auto" else wanted.escape
    plain = _Look(path, dialect, wanted, escape)
    if plain.returns_end_rows:
        dialect = _with_header(path, replace(dialect, mends_returns=True), wanted)
        plain = _Look(path, dialect, wanted, escape)
    if wanted.escape != "auto" or not plain.has_escaped_quote:
        return _dialect_by(path, dialect, wanted, plain, escape)
    escaped = _Look(path, dialect, wanted, BACKSLASH)
    if plain.fault.line and not escaped.fault.line:
        return _dialect_by(path, dialect, wanted, escaped, BACKSLASH)
    if not plain.fault.line and not escaped.fault.line and plain.num_records != escaped.num_records:
        raise DataError(
            f"{path} has backslashes before quotes and can be read in two ways, as {plain.num_records:,} lines or "
            f"{escaped.num_records:,}; set data.source.escape to a backslash, or to nothing where it is text"
        )
    return _dialect_by(path, dialect, wanted, plain, "")


class _Look:
    """One look at all of a file: its records by its quotes, and what would make another look necessary."""

    def __init__(self, path: Path, dialect: Dialect, wanted: Wanted, escape: str) -> None:
        header = list(dialect.header)
        time = header.index(wanted.time_column) if wanted.time_column in header else None
        separator = dialect.separator.encode()
        scanner = QuoteScanner(separator, wanted.quote.encode(), escape.encode(), len(header), time)
        escaped_quote = (BACKSLASH + wanted.quote).encode() if wanted.quote else b""
        self.returns_end_rows = self.has_escaped_quote = False
        for block in blocks_of(path, dialect.encoding, dialect.mends_returns):
            scanner.add(block)
            if wanted.quote and wanted.quote.encode() in block:
                self.has_escaped_quote |= escaped_quote in block
            self.returns_end_rows |= _has_rows_between_returns(block, separator, len(header))
        scanner.close()
        self.num_records, self.fault = scanner.num_records, scanner.fault


def _has_rows_between_returns(block: bytes, separator: bytes, num_columns: int) -> bool:
    """Whether carriage returns that stand alone end rows: two pieces of one line have a row's separators."""
    if not num_lone_returns(block):
        return False
    lines = (line.removesuffix(b"\r").split(b"\r") for line in block.split(b"\n"))
    return any(sum(piece.count(separator) == num_columns - 1 for piece in line) > 1 for line in lines)


def _dialect_by(path: Path, dialect: Dialect, wanted: Wanted, look: _Look, escape: str) -> Dialect:
    if look.fault.line:
        raise _broken_quote(path, look.fault, wanted.quote)
    return replace(dialect, escape=escape, num_records=max(0, look.num_records - dialect.records_before_rows))


def _broken_quote(path: Path, fault: Fault, quote: str) -> DataError:
    return DataError(
        f'{path} cannot be read: line {fault.line}: a quote ({quote}) {fault.reason}; data.source.quote="" reads '
        f"quotes as text, data.source.escape is the character before a quote that does not end its field"
    )


def _with_header(path: Path, dialect: Dialect, wanted: Wanted) -> Dialect:
    """``dialect`` with the names of its columns, and the separator of a first line ``sep=;``."""
    first = _first_lines(path, dialect)
    lines = first.decode(errors="replace").replace("\r\n", "\n").split("\n")
    num_lines = num_records = 0
    if lines[0][:4].lower() == "sep=" and len(lines[0]) == 5:
        dialect, num_lines, num_records = replace(dialect, separator=lines[0][4]), 1, 1
    header = wanted.header
    if not header:
        num_blank = next((k for k, line in enumerate(lines[num_lines:]) if line.strip()), 0)
        line = lines[num_lines + num_blank].strip("\r").split("\r")[0]
        if wanted.quote and line.count(wanted.quote) % 2:
            fault = Fault(line=num_lines + num_blank + 1, reason="in the header is not closed")
            raise _broken_quote(path, fault, wanted.quote)
        header = _names_in(line, dialect.separator, wanted.quote)
        num_lines, num_records = num_lines + num_blank + 1, num_records + 1
    return replace(dialect, header=header, lines_before_rows=num_lines, records_before_rows=num_records)


def _first_lines(path: Path, dialect: Dialect) -> bytes:
    """The beginning of the text, with two lines that are not blank where it has as many."""
    first = b""
    for block in blocks_of(path, dialect.encoding, dialect.mends_returns):
        first += block
        if sum(bool(line.strip()) for line in first.split(b"\n")[:-1]) > 1:
            break
    return first


def _names_in(line: str, separator: str, quote: str) -> tuple[str, ...]:
    if not quote:
        return tuple(name.strip() for name in line.split(separator))
    fields = csv.reader([line], delimiter=separator, quotechar=quote, skipinitialspace=True)
    return tuple(name.strip() for name in next(fields, []))
