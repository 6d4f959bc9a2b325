"""Columns of a file that speaks of a log's users or items: read as the log's files are, ids by the same rule."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from configs.errors import DataError
from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.read.arrow_types import words_of
from data_pipeline.prepare.read.delimited import EXTRA_FIELD, LINE_COLUMN, scan_lines
from data_pipeline.prepare.read.empty_files import is_empty
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.formats import SUFFIXES, file_layout_of, scan_file
from data_pipeline.prepare.read.id_values import id_number, id_text, text_of
from data_pipeline.prepare.read.json_lines import json_of
from data_pipeline.prepare.read.sniff import start_of, view_of_content
from data_pipeline.prepare.read.sources import LogFile, reading
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of

ROW = "row_of_file"
_LINES_FOR_KEYS = 1000
"""Of JSON lines: a key that none of them has is none of the file, as in a log."""


@dataclass(kw_only=True, slots=True)
class NamedFile:
    """A file as a user names it: ``key=path``, and the keys that choose its columns, for messages."""

    key: str
    path: str
    keys_of_columns: dict[str, str]
    """By column, the key that a user sets to name another."""
    source: SourceConfig

    @property
    def shown(self) -> str:
        """As the user typed it."""
        return f"{self.key}={self.path}"


def read_ids(file: NamedFile, column: str, id_type: pl.DataType, others: Sequence[str] = ()) -> pl.DataFrame:
    """``id`` (``id_type``, null where the value is none of that type) and ``text`` of each row that has one in
    ``column``, and ``others`` as they are. Raises :class:`DataError`."""
    with opened(file, [column, *others]) as log, reading(log.path):
        _refuse_list(file, log, column)
        refuse_broken(file, log.scan, log.broken)
        rows = log.scan
        picked = [pl.col(name).alias(f"of_file_{name}") for name in others]
        some = rows.select(typed_id(log, column, id_type).alias("id"), text_of(log, column).alias("text"), *picked)
        found = some.filter(pl.col("text").is_not_null()).collect()
    return found.rename({f"of_file_{name}": name for name in others})


def refuse_broken(file: NamedFile, rows: pl.LazyFrame, broken: pl.Expr) -> None:
    """Raise :class:`DataError` for rows that are ``broken`` as a whole: who or what they name cannot be guessed."""
    found = rows.select(broken.alias(ROW)).with_row_index("row").filter(pl.col(ROW).is_not_null()).collect()
    if len(found):
        raise DataError(
            f"{file.shown}: {len(found):,} of its rows cannot be read ({found[ROW][0]}), first row "
            f"{found['row'][0] + 1}; fix them"
        )


def _refuse_list(file: NamedFile, log: LogFile, name: str) -> None:
    if log.schema[name].is_nested():
        raise DataError(f"{file.shown}: column {name!r} holds {words_of(log.schema[name])}; give a row to each id")


def typed_id(log: LogFile, name: str, id_type: pl.DataType) -> pl.Expr:
    """The id in column ``name`` as ``id_type``; null where it is none of that type."""
    return id_number(log, name) if id_type == pl.Int64 else id_text(log, name)


@contextmanager
def opened(file: NamedFile, names: Sequence[str]) -> Iterator[LogFile]:
    """The file as a scan, for the time of a block: text behind a URL is copied to a folder of its own."""
    with ExitStack() as copies:
        yield _log_file(file, list(dict.fromkeys(names)), copies)


def _log_file(file: NamedFile, names: list[str], copies: ExitStack) -> LogFile:
    place = _place_of(file)
    view = _view_of(file, place, names)
    source = view.source(file.source)
    layout = file_layout_of(place, source)
    if isinstance(place, ObjectPath) and layout is not Layout.PARQUET:
        copy = Path(copies.enter_context(tempfile.TemporaryDirectory(prefix="shardrec-"))) / place.name
        place.fetch(copy)
        place = copy
    with reading(place):
        if is_empty(place, source):
            raise DataError(f"{file.shown} holds no row")
        there = _json_keys(place, source) if layout is Layout.JSON_LINES else None
        _check_names(file, names, there)
        roles = dict(zip(("user", "item", *map(str, range(len(names)))), names, strict=False))
        scan = scan_file(place, roles, source, view=view)
        schema = scan.rows.collect_schema()
    _check_names(file, names, [name for name in schema.names() if name != EXTRA_FIELD])
    return LogFile(
        path=place,
        scan=scan.rows,
        schema=schema,
        source=source,
        broken=scan.broken,
        needed=tuple(names),
        num_records=scan.num_records,
        view=view,
    )


def _place_of(file: NamedFile) -> AnyPath:
    place = path_of(file.path)
    if not place.exists():
        raise DataError(f"{file.shown} does not exist")
    if not place.is_file():
        raise DataError(f"{file.shown} is no file; name a file of {', '.join(SUFFIXES)}")
    return place


def _view_of(file: NamedFile, place: AnyPath, names: Sequence[str]) -> FileView:
    """By its name; by its content where the name does not say, or where another separator stands in its header."""
    layout = file_layout_of(place, file.source)
    if layout not in (Layout.AUTO, Layout.DELIMITED):
        return FileView()
    found = view_of_content(place, start_of(place), file.source, names)
    if found is None and layout is Layout.AUTO:
        raise DataError(
            f"{file.shown} is of an unknown format: its name does not say, and its content has no "
            f"{' '.join(map(repr, names))}; name a file of {', '.join(SUFFIXES)}"
        )
    if found is None or found.compression:
        return FileView()  # unpacked and looked at by the readers of logs
    return found if layout is Layout.AUTO else FileView(separator=found.separator)


def columns_in(log: LogFile) -> list[str]:
    """All columns of the file: of JSON lines a scan has those alone that were asked for."""
    if log.layout is Layout.JSON_LINES:
        return _json_keys(log.path, log.source) or []
    return [name for name in log.schema.names() if name != EXTRA_FIELD]


def first_objects(place: AnyPath, source: SourceConfig) -> list[dict[str, object]]:
    """The objects among the first lines of JSON lines, however long each of them is."""
    assert isinstance(place, Path), "text of an object store is read from a local copy"
    lines = scan_lines(place, source).head(_LINES_FOR_KEYS).collect()[LINE_COLUMN]
    return [entry for line in lines if isinstance(entry := json_of(line), dict)]


def _json_keys(place: AnyPath, source: SourceConfig) -> list[str] | None:
    """The keys of the first objects of JSON lines; None where there is no object."""
    return list(dict.fromkeys(key for entry in first_objects(place, source) for key in entry)) or None


def _check_names(file: NamedFile, names: Sequence[str], there: list[str] | None) -> None:
    for name in names if there is not None else ():
        assert there is not None, "checked above"
        if name not in there:
            key = file.keys_of_columns.get(name, "")
            hint = f"; set {key} to one of them" if key else ""
            raise DataError(f"{file.shown} has no column {name!r}; its columns are {', '.join(there[:40])}{hint}")
