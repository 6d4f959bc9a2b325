"""Columns of a file of items: their values as text, numbers or lists of them, and what is wrong in a row."""

import json
import math
from collections.abc import Callable
from typing import Any

import polars as pl

from configs.errors import DataError
from configs.schema.item_features import ItemFeatureConfig, ItemFeatureType
from configs.schema.source import Layout
from data_pipeline.prepare.read.arrow_types import words_of
from data_pipeline.prepare.read.delimited import LINE_COLUMN
from data_pipeline.prepare.read.feature_columns import (
    LARGEST_NUMBER,
    MAX_VALUE_BYTES,
    event_column,
    reasons_of,
    typed_value,
)
from data_pipeline.prepare.read.id_values import text_of
from data_pipeline.prepare.read.json_lines import json_of
from data_pipeline.prepare.read.named_columns import NamedFile, columns_in, opened, typed_id
from data_pipeline.prepare.read.sources import LogFile, reading

BROKEN = "broken"
_SINGLE = (ItemFeatureType.CATEGORY, ItemFeatureType.NUMBER)
_LISTS = (ItemFeatureType.CATEGORIES, ItemFeatureType.VECTOR)


def content_rows(
    file: NamedFile, item_column: str, id_type: pl.DataType, features: dict[str, ItemFeatureConfig]
) -> pl.DataFrame:
    """Every row: ``id`` (``id_type``, null where it is none of that type), ``has_item``, why it is ``broken`` or
    null, and each feature under its ``event_column``: string, float64, or a list of them, null where missing.

    Raises :class:`DataError` for a file that cannot be read and a column that cannot hold its feature.
    """
    columns = {name: feature.column or name for name, feature in features.items()}
    keys = {column: f"data.item_features.{name}.column" for name, column in columns.items()}
    file.keys_of_columns = keys | file.keys_of_columns
    in_lines = _lists_in_lines(file, item_column, features, columns)
    plain = [column for name, column in columns.items() if name not in in_lines]
    with opened(file, [item_column, *plain]) as log, reading(log.path):
        typed, reasons = dict[str, pl.Expr](), [log.broken]
        for name, feature in features.items():
            if name in in_lines:
                values, why = _lists(name, feature, log, _value_in_line(columns[name]))
            else:
                values, why = _typed(file, log, name, feature, columns[name])
            typed[event_column(name)] = values
            reasons += why
        return log.scan.select(
            id=typed_id(log, item_column, id_type),
            has_item=text_of(log, item_column).is_not_null(),
            **{BROKEN: pl.coalesce(reasons)},
            **typed,
        ).collect()


def _typed(
    file: NamedFile, log: LogFile, name: str, feature: ItemFeatureConfig, column: str
) -> tuple[pl.Expr, list[pl.Expr]]:
    dtype = log.schema[column]
    is_list = isinstance(dtype, pl.List | pl.Array)
    takes_lists = feature.type in _LISTS
    is_plain = not dtype.is_nested() and not dtype.is_temporal()
    if not (is_plain or (is_list and takes_lists and not dtype.inner.is_nested())):  # type: ignore[attr-defined]
        raise DataError(
            f"{file.shown}: column {column!r} (data.item_features.{name}) is {words_of(dtype)}; data.item_features."
            f"{name}.type={feature.type.value} takes {'lists' if takes_lists else 'one plain value an item'}"
        )
    if feature.type in _SINGLE:
        text = text_of(log, column, with_blanks=log.layout is not Layout.DELIMITED)
        is_number = dtype.is_numeric()
        value = typed_value(feature.as_event_feature, text, pl.col(column), is_number)
        return value, reasons_of(name, feature.as_event_feature, value, text, is_number)
    if feature.type is ItemFeatureType.TEXT:
        return text_of(log, column), []
    return _lists(name, feature, log, pl.col(column) if is_list else text_of(log, column))


def _lists_in_lines(
    file: NamedFile, item_column: str, features: dict[str, ItemFeatureConfig], columns: dict[str, str]
) -> list[str]:
    """The features whose lists stand in JSON lines, which are scanned for plain values alone."""
    with opened(file, [item_column]) as log:
        if log.layout is not Layout.JSON_LINES:
            return []
        there = columns_in(log)
    found = [name for name, feature in features.items() if feature.type in _LISTS]
    for column in (columns[name] for name in found):
        if column not in there:
            raise DataError(
                f"{file.shown} has no column {column!r}; its columns are {', '.join(there[:40])}; set "
                f"{file.keys_of_columns[column]} to one of them"
            )
    return found


def _value_in_line(column: str) -> pl.Expr:
    """The value of ``column`` in each line, a list as its JSON; null where there is none."""

    def value_of(line: str | None) -> str | None:
        entry = json_of(line) if line is not None else None
        value = entry.get(column) if isinstance(entry, dict) else None
        return value if isinstance(value, str) or value is None else json.dumps(value)

    return pl.col(LINE_COLUMN).map_batches(
        lambda lines: pl.Series(lines.name, [value_of(line) for line in lines], dtype=pl.String),
        return_dtype=pl.String(),
        is_elementwise=True,
    )


def _lists(name: str, feature: ItemFeatureConfig, log: LogFile, given: pl.Expr) -> tuple[pl.Expr, list[pl.Expr]]:
    """Of ``given``, lists or their text: the values, and why a row is broken."""
    inner: pl.DataType = pl.String()
    read = _categories_of(feature.separator, set(log.source.missing))
    if feature.type is ItemFeatureType.VECTOR:
        read, inner = _vector_of, pl.Float64()
    shape = pl.Struct({"values": pl.List(inner), "reason": pl.String})
    found = given.map_batches(
        lambda series: pl.Series(series.name, [read(value) for value in series.to_list()], dtype=shape),
        return_dtype=shape,
        is_elementwise=True,
    )
    reason = found.struct.field("reason")
    return found.struct.field("values"), [pl.when(reason.is_not_null()).then(pl.lit(f"{name}_") + reason)]


def _categories_of(separator: str, missing: set[str]) -> Callable[[Any], dict[str, Any]]:
    def read(value: Any) -> dict[str, Any]:
        if value is None:
            return {"values": None, "reason": None}
        if isinstance(value, str):
            parsed = _json_list(value)
            value = value.split(separator) if parsed is None else parsed
        texts = [text for each in value if (text := _text(each)) and text not in missing]
        if any(len(text.encode()) > MAX_VALUE_BYTES for text in texts):
            return {"values": None, "reason": "too_long"}
        return {"values": list(dict.fromkeys(texts)) or None, "reason": None}

    return read


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _vector_of(value: Any) -> dict[str, Any]:
    """Of a list, of the JSON of one, or of numbers with blanks or commas between them."""
    if isinstance(value, str):
        parsed = _json_list(value)
        value = value.replace(",", " ").split() if parsed is None else parsed
    if not value:
        return {"values": None, "reason": None}
    try:
        numbers = [float(each) for each in value]
    except (TypeError, ValueError):
        return {"values": None, "reason": "not_a_vector"}
    if not all(abs(number) <= LARGEST_NUMBER for number in numbers):
        return {"values": None, "reason": "out_of_range"}
    return {"values": numbers, "reason": None}


def _json_list(text: str) -> list[Any] | None:
    if not text.startswith("["):
        return None
    found = json_of(text)
    return found if isinstance(found, list) and not any(isinstance(each, list | dict) for each in found) else None
