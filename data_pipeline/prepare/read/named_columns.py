"""Columns of a file that speaks of a log's users or items: read as the log's files are, ids by the same rule."""

import json
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
from data_pipeline.prepare.read.json_lines import decoded_objects
from data_pipeline.prepare.read.sniff import start_of, view_of_content
from data_pipeline.prepare.read.sources import LogFile, reading
from data_pipeline.prepare.read.times import nanoseconds
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of

ROW = "row_of_file"


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
    with _opened(file, [column, *others]) as log, reading(log.path):
        _refuse_list(file, log, column)
        _refuse_broken(file, log.scan, log.broken)
        rows = log.scan
        picked = [pl.col(name).alias(f"of_file_{name}") for name in others]
        some = rows.select(_id(log, column, id_type).alias("id"), text_of(log, column).alias("text"), *picked)
        found = some.filter(pl.col("text").is_not_null()).collect()
    return found.rename({f"of_file_{name}": name for name in others})


def read_events(
    file: NamedFile, user: str, item: str, time: str, id_types: tuple[pl.DataType, pl.DataType]
) -> pl.DataFrame:
    """The events of a file of histories, in order within a user: ``user_text``, ``user``, ``item``, ``item_text``.

    A row is an event, or holds lists of a user's items and times. ``time`` empty, or no column of the file: the order
    of the rows counts. Users are in the order of their first row.
    """
    with _opened(file, [user, item]) as log:
        has_time = bool(time) and time in _columns(file, log)
        if has_time and time not in log.schema:
            with _opened(file, [user, item, time]) as timed:
                return _events(file, timed, user, item, time, id_types)
        return _events(file, log, user, item, time if has_time else "", id_types)


def _events(
    file: NamedFile, log: LogFile, user: str, item: str, time: str, id_types: tuple[pl.DataType, pl.DataType]
) -> pl.DataFrame:
    names = [user, item, *([time] if time else [])]
    with reading(log.path):
        if _holds_lists(log, item):
            rows = _json_lists(file, log, names)
        else:
            _refuse_broken(file, log.scan, log.broken)
            rows = log.scan
        rows = _one_event_a_row(rows.select(names).with_row_index(ROW), names[1:])
        schema = rows.collect_schema()
        exploded = LogFile(path=log.path, scan=rows, schema=schema, source=log.source, broken=log.broken)
        when = nanoseconds(time, schema[time], log.source.time_unit) if time else pl.lit(0, pl.Int64)
        found = rows.select(
            ROW,
            _id(exploded, user, id_types[0]).alias("user"),
            text_of(exploded, user).alias("user_text"),
            _id(exploded, item, id_types[1]).alias("item"),
            text_of(exploded, item).alias("item_text"),
            when.alias("time"),
        ).collect()
    found = found.filter(pl.col("user_text").is_not_null())
    without_time = found.filter(pl.col("time").is_null() & pl.col("item_text").is_not_null())
    if len(without_time):
        raise DataError(
            f"{file.shown}: {len(without_time):,} rows have no time that can be read in column {time!r}, first "
            f"in row {without_time[ROW][0] + 1}; fix them, or set data.source.time_unit"
        )
    first = found.group_by("user_text", maintain_order=True).agg(pl.col(ROW).first().alias("first_row"))
    return found.join(first, on="user_text", how="left", maintain_order="left").sort(
        ["first_row", "time"], maintain_order=True
    )


def _holds_lists(log: LogFile, name: str) -> bool:
    """Whether the first object of JSON lines has a list under ``name``; a scan gives texts alone."""
    found = _first_object(log.path) if log.layout is Layout.JSON_LINES else None
    return found is not None and isinstance(found.get(name), list)


def _json_lists(file: NamedFile, log: LogFile, names: list[str]) -> pl.LazyFrame:
    """Rows of JSON lines of a user and lists; :class:`DataError` for a line that is no such object."""
    assert isinstance(log.path, Path), "text of an object store is read from a local copy"
    fields: dict[str, pl.DataType] = {name: pl.List(pl.String) for name in names}
    dtype = pl.Struct(fields | {names[0]: pl.String()})
    lines = scan_lines(log.path, log.source).collect()[LINE_COLUMN]
    lines = lines.filter(lines.str.strip_chars() != "")
    found = decoded_objects(lines, dtype)
    is_row = pl.lit("no JSON object of a user and lists", pl.String)
    _refuse_broken(file, pl.LazyFrame({ROW: found.is_null()}), pl.when(ROW).then(is_row))
    return found.struct.unnest().lazy()


def _refuse_broken(file: NamedFile, rows: pl.LazyFrame, broken: pl.Expr) -> None:
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


def _one_event_a_row(rows: pl.LazyFrame, names: list[str]) -> pl.LazyFrame:
    """``rows`` with the lists among the columns ``names`` opened, all of them together."""
    schema = rows.collect_schema()
    lists = [name for name in names if isinstance(schema[name], pl.List)]
    return rows.explode(lists, empty_as_null=True) if lists else rows


def _id(log: LogFile, name: str, id_type: pl.DataType) -> pl.Expr:
    return id_number(log, name) if id_type == pl.Int64 else id_text(log, name)


@contextmanager
def _opened(file: NamedFile, names: Sequence[str]) -> Iterator[LogFile]:
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
        there = _json_keys(place) if layout is Layout.JSON_LINES else None
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


def _columns(file: NamedFile, log: LogFile) -> list[str]:
    """All columns of the file: of JSON lines a scan has those alone that were asked for."""
    return _json_keys(log.path) or [] if log.layout is Layout.JSON_LINES else log.schema.names()


def _json_keys(place: AnyPath) -> list[str] | None:
    """The keys of the first object of JSON lines; None where its first line is none."""
    found = _first_object(place)
    return None if found is None else list(found)


def _first_object(place: AnyPath) -> dict[str, object] | None:
    for line in start_of(place).decode(errors="replace").splitlines():
        if line.strip():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                return None
            return entry if isinstance(entry, dict) else None
    return None


def _check_names(file: NamedFile, names: Sequence[str], there: list[str] | None) -> None:
    for name in names if there is not None else ():
        assert there is not None, "checked above"
        if name not in there:
            key = file.keys_of_columns.get(name, "")
            hint = f"; set {key} to one of them" if key else ""
            raise DataError(f"{file.shown} has no column {name!r}; its columns are {', '.join(there[:40])}{hint}")
