"""Find the files of a log, in order of arrival, and read their columns as one kind of table."""

import errno
import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa

from configs.errors import ConfigError, DataError
from configs.schema import ColumnsConfig
from configs.schema.features import FeatureConfig, column_of
from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.delimited import EXTRA
from data_pipeline.prepare.read.empty_files import is_empty
from data_pipeline.prepare.read.feature_columns import check_type
from data_pipeline.prepare.read.formats import (
    SUFFIXES,
    file_layout_of,
    scan_file,
    suffix_of,
)
from data_pipeline.prepare.read.locate_error import locate_corruption
from data_pipeline.prepare.read.missing_column import config_key, missing_column
from data_pipeline.store.paths import AnyPath, objects_of, path_of

_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    pa.ArrowException,
    UnicodeDecodeError,
)
_UNREAD_SUFFIXES = [
    ".orc",
    ".avro",
    ".feather",
    ".arrow",
    ".xlsx",
    ".zip",
    ".tar",
    ".tgz",
    ".bz2",
    ".xz",
    ".7z",
    ".rar",
]
"""Formats of data that a folder's files may not silently be left out for."""


@dataclass(kw_only=True, slots=True)
class LogFile:
    """One file of the log: its path, a scan of it, its columns' types, why a row is broken as a whole or null."""

    path: AnyPath
    scan: pl.LazyFrame
    schema: pl.Schema
    source: SourceConfig = field(default_factory=SourceConfig)
    broken: pl.Expr
    name: str = ""
    """What the quarantine calls it: the URL where ``path`` is a copy."""
    features: dict[str, FeatureConfig] = field(default_factory=dict)
    """The features that are read of it."""
    needed: tuple[str, ...] = ()
    """The log's columns of user, item and time, of which a row has all."""
    num_records: int = 0
    """Rows that the scan must give at least, where they were counted in another way."""
    is_empty: bool = False
    """Whether it holds no row, so that its columns, if any, have not been looked at."""
    first_number: int = 0
    """The number of the first row over all files, which stands for its time in a log without times."""

    @property
    def layout(self) -> Layout:
        """What the file holds."""
        return file_layout_of(self.path, self.source)

    @property
    def is_text(self) -> bool:
        """Whether the format knows no types and no number of rows."""
        return self.is_empty or self.layout is not Layout.PARQUET


@contextmanager
def reading(path: AnyPath) -> Iterator[None]:
    """Turn the engine's words on an unreadable ``path`` into one :class:`DataError`; a full disk is not its fault.

    Arrow's word for a column's name that is no UTF-8 is ``UnicodeDecodeError``; Polars panics on some damaged types.
    """
    try:
        yield
    except (*_UNREADABLE, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        lines = str(error).strip().splitlines()
        reason = lines[0].rstrip(":") if lines else type(error).__name__
        place = f"{place}: " if (place := locate_corruption(path)) else ""
        raise DataError(f"{path} cannot be read: {place}{reason}; mend or remove the file") from error


def find_log_files(log: str, source: SourceConfig | None = None) -> list[AnyPath]:
    """Places of ``log`` (a file, a folder with all below it, or a glob), sorted by name: the order of arrival.

    In a folder, names that start with ``.`` or ``_`` are left out, as Spark and Hive do, and so are endings that are
    no log's; links are followed, each folder once. A folder that a glob names is taken with all below it.
    """
    source = source or SourceConfig()
    if not log:
        raise ConfigError("data.log is empty; set it to a file, a folder or a glob of Parquet, CSV or JSON lines")
    place = path_of(log)
    found = _local_files(place) if isinstance(place, Path) else _objects(place.url)
    if not found:
        raise DataError(
            f"data.log={log} names no file; give a {', '.join(SUFFIXES)} file, a folder or a glob of them"
        )
    for file in found:
        if isinstance(file, Path) and not file.is_file():
            raise DataError(f"{file} is no regular file; data.log takes files")
        if file_layout_of(file, source) is Layout.AUTO:
            raise DataError(
                f"{file} is of an unknown format; data.log takes {', '.join(SUFFIXES)}, and others where "
                f"data.source.layout says how they are written"
            )
    return sorted(found, key=lambda file: file.parts)


def _local_files(path: Path) -> set[AnyPath]:
    named = [path] if path.exists() else [Path(name) for name in glob.glob(str(path), recursive=True)]
    found: set[AnyPath] = set()
    for entry in named:
        found.update(_files_below(entry) if entry.is_dir() else [entry])
    return found


def _objects(url: str) -> set[AnyPath]:
    """Objects by the rules for local files: those that are named, and of those below a folder the ones of a log.

    Empty objects whose names end with a slash stand for folders in some tools; they are none of a log's files.
    """
    found: set[AnyPath] = set()
    for place, is_named in objects_of(url):
        below = place.parts[len(path_of(url).parts) :]
        if is_named:
            found.add(place)
        elif "_delta_log" in below:
            _refuse_delta(url)
        elif not any(name.startswith((".", "_")) for name in below):
            _refuse_unread(place)
            found.update([place] if suffix_of(place) in SUFFIXES else [])
    return found


def _files_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        if "_delta_log" in folders:
            _refuse_delta(place)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        files = [Path(place) / name for name in names if not name.startswith((".", "_"))]
        for file in files:
            _refuse_unread(file)
        found += [file for file in files if suffix_of(file) in SUFFIXES]
    return found


def _refuse_delta(place: str) -> None:
    raise DataError(
        f"{place} is a Delta table: its folder also holds files that no longer count; export it to Parquet"
    )


def _refuse_unread(file: AnyPath) -> None:
    if suffix_of(file) in _UNREAD_SUFFIXES or file.suffix.lower() in _UNREAD_SUFFIXES:
        raise DataError(f"{file} is of a format that is not read; convert it, or move it out of data.log")


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read: {error.strerror}; mend its permissions") from error


def open_log(
    paths: Sequence[AnyPath],
    columns: ColumnsConfig,
    source: SourceConfig | None = None,
    features: dict[str, FeatureConfig] | None = None,
) -> list[LogFile]:
    """Open every file and check that it has the columns, with fitting types; reads only the files' headers."""
    return [_open(path, columns, source or SourceConfig(), features or {}) for path in paths]


def column_names(columns: ColumnsConfig, features: dict[str, FeatureConfig] | None = None) -> dict[str, str]:
    """Our names of the columns in use, mapped to the log's; ``features.NAME`` is that of a feature."""
    names = {"user": columns.user, "item": columns.item}
    names |= {"timestamp": columns.timestamp} if columns.timestamp else {}
    names |= {"event_type": columns.event_type} if columns.event_type else {}
    return names | {f"features.{name}": column_of(name, feature) for name, feature in (features or {}).items()}


def _open(path: AnyPath, columns: ColumnsConfig, source: SourceConfig, features: dict[str, FeatureConfig]) -> LogFile:
    names = column_names(columns, features)
    with reading(path):
        if is_empty(path, source):
            return _without_rows(path, names, source, features)
        scan = scan_file(path, names, source)
        schema = scan.rows.collect_schema()
    for key, name in names.items():
        if name not in schema:
            raise missing_column(path, key, name, [there for there in schema.names() if there != EXTRA])
        if f"{name}_duplicated_0" in schema:
            raise DataError(f"{path} has two columns {name!r} ({config_key(key)}); rename one of them")
    if file_layout_of(path, source) is Layout.PARQUET:
        _check_types(path, column_names(columns), schema)
        for name, feature in features.items():
            column = column_of(name, feature)
            check_type(path, name, feature, column, schema[column])
    return LogFile(
        path=path,
        scan=scan.rows,
        schema=schema,
        source=source,
        broken=scan.broken,
        features=features,
        needed=tuple(name for key, name in names.items() if key in ("user", "item", "timestamp")),
        num_records=scan.num_records,
    )


def _without_rows(
    path: AnyPath, names: dict[str, str], source: SourceConfig, features: dict[str, FeatureConfig]
) -> LogFile:
    schema = pl.Schema(dict.fromkeys(names.values(), pl.String()))
    nothing = pl.lit(None, pl.String)
    return LogFile(
        path=path,
        scan=pl.LazyFrame(schema=schema),
        schema=schema,
        source=source,
        broken=nothing,
        features=features,
        is_empty=True,
    )


def _check_types(path: AnyPath, names: dict[str, str], schema: pl.Schema) -> None:
    for key, name in names.items():
        dtype = schema[name]
        if key == "timestamp":
            fits = dtype.is_numeric() or dtype in (pl.Datetime, pl.Date, pl.String)
            wanted = "numbers (data.source.time_unit), datetimes, dates or their text"
        else:
            fits = dtype.is_numeric() or dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean)
            wanted = "numbers, strings or booleans"
        if not fits and dtype != pl.Null:
            raise DataError(f"{path}: column {name!r} ({config_key(key)}) is {dtype}; it must hold {wanted}")
