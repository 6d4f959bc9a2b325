"""Find the files of a log, in order of arrival, and read their columns as one kind of table."""

import errno
import glob
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from configs.errors import ConfigError, DataError
from configs.schema import ColumnsConfig

TEXT_SUFFIXES = (".csv", ".jsonl", ".ndjson")
SUFFIXES = (".parquet", *TEXT_SUFFIXES)
_JSON_ROWS_FOR_NAMES = 1000


@dataclass(kw_only=True, slots=True)
class LogFile:
    """One file of the log: its path, a scan of it, and the types that its columns have there."""

    path: Path
    scan: pl.LazyFrame
    schema: pl.Schema

    @property
    def is_text(self) -> bool:
        """Whether the format knows no types, so that ids are read as integers only if all of them are."""
        return self.path.suffix in TEXT_SUFFIXES


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the engine's words on an unreadable ``path`` into one :class:`DataError`; a full disk is not its fault."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}; mend or remove the file") from error


def find_log_files(log: str) -> list[Path]:
    """Paths of ``log`` (a file, a folder with all below it, or a glob), sorted by name: the order of arrival."""
    if not log:
        raise ConfigError("data.log is empty; set it to a file, a folder or a glob of Parquet, CSV or JSON lines")
    path = Path(log)
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix in SUFFIXES and not p.name.startswith((".", "_"))]
    elif path.exists():
        found = [path]
    else:
        found = [p for name in glob.glob(log, recursive=True) if (p := Path(name)).is_file()]
    if not found:
        raise DataError(
            f"data.log={log} names no file; give a {', '.join(SUFFIXES)} file, a folder or a glob of them"
        )
    for file in found:
        if file.suffix not in SUFFIXES:
            raise DataError(f"{file} is of an unknown format; data.log takes {', '.join(SUFFIXES)}")
    return sorted(found)


def open_log(paths: list[Path], columns: ColumnsConfig) -> list[LogFile]:
    """Open every file and check that it has the columns, with fitting types; reads only the files' headers."""
    return [_open(path, columns) for path in paths]


def column_names(columns: ColumnsConfig) -> dict[str, str]:
    """Our names of the columns in use, mapped to the log's."""
    names = {"user": columns.user, "item": columns.item, "timestamp": columns.timestamp}
    return {**names, "event_type": columns.event_type} if columns.event_type else names


def _open(path: Path, columns: ColumnsConfig) -> LogFile:
    names = column_names(columns)
    with reading(path):
        scan = _scan(path, names)
        schema = scan.collect_schema()
    for key, name in names.items():
        if name not in schema:
            there = ", ".join(schema.names())
            raise DataError(
                f"{path} has no column {name!r} (data.columns.{key}); its columns are {there}; "
                f"set data.columns.{key} to one of them"
            )
    if path.suffix == ".parquet":
        _check_types(path, names, schema)
    return LogFile(path=path, scan=scan, schema=schema)


def _scan(path: Path, names: dict[str, str]) -> pl.LazyFrame:
    if path.suffix == ".parquet":
        return pl.scan_parquet(path, glob=False)
    if path.suffix == ".csv":
        return pl.scan_csv(path, glob=False, infer_schema=False)
    found = pl.scan_ndjson(path, infer_schema_length=_JSON_ROWS_FOR_NAMES).collect_schema()
    text = {name: pl.String for name in names.values() if name in found}
    return pl.scan_ndjson(path, infer_schema_length=_JSON_ROWS_FOR_NAMES, schema_overrides=text)


def _check_types(path: Path, names: dict[str, str], schema: pl.Schema) -> None:
    for key, name in names.items():
        dtype = schema[name]
        is_string = dtype in (pl.String, pl.Categorical, pl.Enum)
        fits = {
            "timestamp": dtype.is_integer() or dtype.is_float() or dtype == pl.Datetime,
            "event_type": is_string or dtype.is_integer(),
        }.get(key, is_string or dtype.is_integer())
        if not fits and dtype != pl.Null:
            wanted = "whole milliseconds or a datetime" if key == "timestamp" else "integers or strings"
            raise DataError(f"{path}: column {name!r} (data.columns.{key}) is {dtype}; it must hold {wanted}")


def id_type(files: list[LogFile], name: str, key: str) -> pl.DataType:
    """``Int64`` or ``String``: how the ids in column ``name`` are read, the same in every file.

    Text files hold integers only if every id in all of them is the plain decimal form of an int64 ("7", not "07").
    """
    typed = {f.path: f.schema[name].is_integer() for f in files if not f.is_text and f.schema[name] != pl.Null}
    text = [f for f in files if f.is_text]
    if text:
        found = [is_integer for f in text if (is_integer := _is_integer_text(f, name)) is not None]
        if found:
            typed[text[0].path] = all(found)
    if len(set(typed.values())) > 1:
        integers = next(path for path, is_integer in typed.items() if is_integer)
        strings = next(path for path, is_integer in typed.items() if not is_integer)
        raise DataError(
            f"column {name!r} (data.columns.{key}) holds integers in {integers} and strings in {strings}; "
            f"write the ids as one type"
        )
    return pl.String() if False in typed.values() else pl.Int64()


def _is_integer_text(file: LogFile, name: str) -> bool | None:
    """Whether all ids are plain int64 numbers; None where there is no id at all."""
    ids = pl.col(name)
    is_plain = (ids.cast(pl.Int64, strict=False).cast(pl.String) == ids).fill_null(value=False)
    is_given = ids.is_not_null() & (ids != "")
    query = file.scan.filter(is_given).select(is_plain.all().alias("all"), pl.len().alias("num"))
    with reading(file.path):
        row = query.collect(engine="streaming")
    return bool(row["all"][0]) if row["num"][0] else None
