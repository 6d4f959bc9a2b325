"""Files of histories: events of anybody, with the features that a model reads, as `prepare` would read them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from configs.errors import DataError
from configs.schema.features import FeatureConfig, column_of
from configs.schema.source import Layout
from data_pipeline.prepare.read.delimited import LINE_COLUMN, scan_lines
from data_pipeline.prepare.read.feature_columns import (
    LARGEST_NUMBER,
    MAX_VALUE_BYTES,
    check_type,
    reasons_of,
    typed_column,
    typed_value,
)
from data_pipeline.prepare.read.id_values import text_of
from data_pipeline.prepare.read.json_lines import decoded_objects
from data_pipeline.prepare.read.named_columns import (
    ROW,
    NamedFile,
    columns_in,
    first_objects,
    opened,
    refuse_broken,
    typed_id,
)
from data_pipeline.prepare.read.sources import LogFile, reading
from data_pipeline.prepare.read.times import nanoseconds

_REASON = "reason"
_WORDS = {
    "not_a_number": "is no number",
    "out_of_range": f"is no number of at most {LARGEST_NUMBER:g}",
    "too_long": f"has more than {MAX_VALUE_BYTES:,} bytes",
}


@dataclass(kw_only=True, slots=True)
class EventColumns:
    """What is read of an event, by the file's names of its columns."""

    user: str
    item: str
    time: str
    """Empty, or no column of the file: the order of the rows counts."""
    features: dict[str, FeatureConfig] = field(default_factory=dict)
    """By name. The column named as the feature is read; without it the feature's column of the log."""


def read_events(file: NamedFile, columns: EventColumns, id_types: tuple[pl.DataType, pl.DataType]) -> pl.DataFrame:
    """The events of a file of histories, in order within a user: ``user_text``, ``user``, ``item``, ``item_text``,
    and :func:`typed_column` of each feature.

    A row is an event, or holds lists of a user's items, times and features. Users are in the order of their first
    row. Raises :class:`DataError`, for a feature too whose column is missing or holds another type.
    """
    with opened(file, [columns.user, columns.item]) as log:
        there = columns_in(log)
        columns = replace(
            columns,
            time=columns.time if columns.time in there else "",
            features=_with_columns(file, columns.features, there),
        )
        names = _names_of(columns)
        if set(names) <= set(log.schema):
            return _events(file, log, columns, id_types)
    with opened(file, names) as log:
        return _events(file, log, columns, id_types)


def _with_columns(
    file: NamedFile, features: dict[str, FeatureConfig], there: Sequence[str]
) -> dict[str, FeatureConfig]:
    """``features`` with the column of each in the file; :class:`DataError` where there is none."""
    found = {}
    for name, feature in features.items():
        column = next((each for each in (name, column_of(name, feature)) if each in there), None)
        if column is None:
            other = column_of(name, feature)
            either = f"{name!r} or {other!r}" if other != name else repr(name)
            raise DataError(
                f"{file.shown} has no column {either} for the feature {name}, which the model reads with each "
                f"event (model.event_features); its columns are {', '.join(there[:40])}; add it, empty where a value "
                f"is missing"
            )
        found[name] = replace(feature, column=column)
    return found


def _names_of(columns: EventColumns) -> list[str]:
    """The file's columns that are read, the user's first."""
    of_features = [column_of(name, feature) for name, feature in columns.features.items()]
    return list(dict.fromkeys([columns.user, columns.item, *filter(None, [columns.time]), *of_features]))


def _events(
    file: NamedFile, log: LogFile, columns: EventColumns, id_types: tuple[pl.DataType, pl.DataType]
) -> pl.DataFrame:
    names, time = _names_of(columns), columns.time
    with reading(log.path):
        if _holds_lists(log, columns.item):
            rows = _json_lists(file, log, names)
        else:
            refuse_broken(file, log.scan, log.broken)
            rows = log.scan
        rows = _one_event_a_row(rows.select(names).with_row_index(ROW), names[1:])
        schema = rows.collect_schema()
        exploded = LogFile(path=log.path, scan=rows, schema=schema, source=log.source, broken=log.broken)
        when = nanoseconds(time, schema[time], log.source.time_unit) if time else pl.lit(0, pl.Int64)
        found = rows.select(
            ROW,
            typed_id(exploded, columns.user, id_types[0]).alias("user"),
            text_of(exploded, columns.user).alias("user_text"),
            typed_id(exploded, columns.item, id_types[1]).alias("item"),
            text_of(exploded, columns.item).alias("item_text"),
            when.alias("time"),
            *_features(file, exploded, columns.features),
        ).collect()
    found = found.filter(pl.col("user_text").is_not_null())
    _refuse_without_time(file, found, time)
    _refuse_wrong_values(file, found, columns.features)
    first = found.group_by("user_text", maintain_order=True).agg(pl.col(ROW).first().alias("first_row"))
    return found.join(first, on="user_text", how="left", maintain_order="left").sort(
        ["first_row", "time"], maintain_order=True
    )


def _features(file: NamedFile, log: LogFile, features: dict[str, FeatureConfig]) -> list[pl.Expr]:
    """Of each feature its value, and why that is none or null."""
    found = []
    for name, feature in features.items():
        column = column_of(name, feature)
        check_type(file.shown, name, feature, column, log.schema[column])
        is_number = log.schema[column].is_numeric()
        text = text_of(log, column, with_blanks=log.layout is not Layout.DELIMITED)
        typed = typed_value(feature, text, pl.col(column), is_number)
        reasons = reasons_of(name, feature, typed, text, is_number)
        found += [typed.alias(typed_column(name)), pl.coalesce(reasons).alias(f"{_REASON}_{name}")]
    return found


def _refuse_without_time(file: NamedFile, found: pl.DataFrame, time: str) -> None:
    without_time = found.filter(pl.col("time").is_null() & pl.col("item_text").is_not_null())
    if len(without_time):
        raise DataError(
            f"{file.shown}: {len(without_time):,} rows have no time that can be read in column {time!r}, first "
            f"in row {without_time[ROW][0] + 1}; fix them, or set data.source.time_unit"
        )


def _refuse_wrong_values(file: NamedFile, found: pl.DataFrame, features: dict[str, FeatureConfig]) -> None:
    for name, feature in features.items():
        wrong = found.filter(pl.col(f"{_REASON}_{name}").is_not_null())
        if len(wrong):
            reason = _WORDS[wrong[f"{_REASON}_{name}"][0].removeprefix(f"{name}_")]
            raise DataError(
                f"{file.shown}: in {len(wrong):,} rows column {column_of(name, feature)!r} (the feature {name}) "
                f"{reason}, first in row {wrong[ROW][0] + 1}; fix them, or leave the value empty"
            )


def _holds_lists(log: LogFile, name: str) -> bool:
    """Whether an object of JSON lines has a list under ``name``; a scan gives texts alone."""
    if log.layout is not Layout.JSON_LINES:
        return False
    return any(isinstance(each.get(name), list) for each in first_objects(log.path, log.source))


def _json_lists(file: NamedFile, log: LogFile, names: list[str]) -> pl.LazyFrame:
    """Rows of JSON lines of a user and lists; :class:`DataError` for a line that is no such object."""
    assert isinstance(log.path, Path), "text of an object store is read from a local copy"
    fields: dict[str, pl.DataType] = {name: pl.List(pl.String) for name in names}
    dtype = pl.Struct(fields | {names[0]: pl.String()})
    lines = scan_lines(log.path, log.source).collect()[LINE_COLUMN]
    lines = lines.filter(lines.str.strip_chars() != "")
    found = decoded_objects(lines, dtype)
    is_row = pl.lit("no JSON object of a user and lists", pl.String)
    refuse_broken(file, pl.LazyFrame({ROW: found.is_null()}), pl.when(ROW).then(is_row))
    return found.struct.unnest().lazy()


def _one_event_a_row(rows: pl.LazyFrame, names: list[str]) -> pl.LazyFrame:
    """``rows`` with the lists among the columns ``names`` opened, all of them together."""
    schema = rows.collect_schema()
    lists = [name for name in names if isinstance(schema[name], pl.List)]
    return rows.explode(lists, empty_as_null=True) if lists else rows
