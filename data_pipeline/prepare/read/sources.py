"""The files of a log, opened: their columns as one kind of table, whatever their formats."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from configs.errors import FULL_DISK, DataError
from configs.schema import ColumnsConfig
from configs.schema.features import FeatureConfig, column_of
from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.arrow_types import words_of
from data_pipeline.prepare.read.delimited import EXTRA_FIELD
from data_pipeline.prepare.read.empty_files import is_empty
from data_pipeline.prepare.read.feature_columns import check_type
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.formats import Scan, file_layout_of, scan_file
from data_pipeline.prepare.read.locate_error import locate_corruption
from data_pipeline.prepare.read.log_files import find_log_files as find_log_files
from data_pipeline.prepare.read.missing_column import config_key, missing_column
from data_pipeline.store.paths import AnyPath

_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    pa.ArrowException,
    UnicodeDecodeError,
)


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
    view: FileView = field(default_factory=FileView)
    """What a table and the folders say of it."""
    note: str = ""
    """What a person should know of how it is read."""

    def scan_from(self, names: dict[str, str], first_row: int) -> Scan:
        """The file again, from ``first_row`` on."""
        return scan_file(self.path, names, self.source, first_row, self.view)

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
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise
        lines = str(error).strip().splitlines()
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{path} is not there; bring it back, or name the log without it") from error
        reason = lines[0].rstrip(":") if lines else type(error).__name__
        place = f"{place}: " if (place := locate_corruption(path)) else ""
        raise DataError(
            f"{path} cannot be read: {place}{reason}; fix the file, or move it out of data.log"
        ) from error


def open_log(
    paths: Sequence[AnyPath],
    columns: ColumnsConfig,
    source: SourceConfig | None = None,
    features: dict[str, FeatureConfig] | None = None,
    views: Sequence[FileView] | None = None,
) -> list[LogFile]:
    """Open every file and check that it has the columns, with fitting types; reads only the files' headers.

    ``views`` are of the files, where they are not read by their names alone.
    """
    source, views = source or SourceConfig(), views or [FileView() for _ in paths]
    pairs = zip(paths, views, strict=True)
    return [_open(path, columns, view.source(source), features or {}, view) for path, view in pairs]


def column_names(columns: ColumnsConfig, features: dict[str, FeatureConfig] | None = None) -> dict[str, str]:
    """Our names of the columns in use, mapped to the log's; ``features.NAME`` is that of a feature."""
    names = {"user": columns.user, "item": columns.item}
    names |= {"timestamp": columns.timestamp} if columns.timestamp else {}
    names |= {"event_type": columns.event_type} if columns.event_type else {}
    return names | {f"features.{name}": column_of(name, feature) for name, feature in (features or {}).items()}


def _open(
    path: AnyPath, columns: ColumnsConfig, source: SourceConfig, features: dict[str, FeatureConfig], view: FileView
) -> LogFile:
    names = column_names(columns, features)
    with reading(path):
        if view.columns and path.stat().st_size == 0:
            raise DataError(f"{path} is empty, though its table counts it; bring it back from a copy of the table")
        if is_empty(path, source):
            return _without_rows(path, names, source, features)
        scan = scan_file(path, names, source, view=view)
        schema = scan.rows.collect_schema()
        note = _match_blanks(schema, names, view)
        if note:
            scan = scan_file(path, names, source, view=view)
            schema = scan.rows.collect_schema()
    for key, name in names.items():
        if name not in schema:
            raise missing_column(path, key, name, [there for there in schema.names() if there != EXTRA_FIELD])
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
        view=view,
        note=note,
    )


def _match_blanks(schema: pl.Schema, names: dict[str, str], view: FileView) -> str:
    """Let ``view`` find columns whose names have blanks around them in the file, as in ``user_id, item_id``."""
    stripped = {there.strip(): there for there in schema.names()}
    matched = {name: stripped[name] for name in names.values() if name not in schema and name in stripped}
    view.physical |= matched
    there = ", ".join(map(repr, matched.values()))
    return f"the blanks around the columns' names {there} do not count" if matched else ""


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
            raise DataError(
                f"{path}: column {name!r} ({config_key(key)}) is {words_of(dtype)}; it must hold {wanted}"
            )
