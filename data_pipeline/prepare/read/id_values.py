"""Ids and kinds of events by their value: how a log spells them, or which type a file gives them, changes nothing.

The rule (docs/ids.md): where every id of a column, over all files, is a whole number of int64, the ids are those
numbers, whether they are written ``7``, `` 7 ``, ``7.0``, ``7e0`` or ``7,000``. Otherwise they are text: without the
blanks around it, ``7.0`` as ``7``, a UUID in small letters. ``007`` and what int64 does not hold are text.
"""

import re
from collections.abc import Callable
from decimal import Decimal

import polars as pl

from data_pipeline.prepare.read.sources import LogFile, reading

MAX_ID_BYTES = 1024
"""A longer id is a field that swallowed its neighbours, say after a quote that was never closed."""
NOT_UTF8 = "\ufffd"
_LEADING_ZERO = r"^[+-]?0[0-9]"
_POINT_ZERO = r"^([+-]?(?:0|[1-9][0-9]*))\.0*$"
_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.0*)?$"
_SCIENTIFIC = r"^[+-]?[1-9](?:\.[0-9]+)?[eE]\+?[0-9]{1,2}$"
"""As programs write a float, with one digit before the point: ``12e4`` may be the beginning of a hash."""
_UUID = r"(?i)^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,2})?")


def text_of(file: LogFile, name: str, *, with_blanks: bool = False) -> pl.Expr:
    """Column ``name`` as text, without the blanks around it but for ``with_blanks``; null where it is blank or stands
    for none."""
    dtype, raw = file.schema[name], pl.col(name)
    if dtype.is_float():
        text = pl.coalesce(_whole_of_float(raw, dtype).cast(pl.String), raw.fill_nan(None).cast(pl.String))
    else:
        text = raw.cast(pl.String, strict=False)
    stripped = text.str.strip_chars()
    is_some = (stripped != "") & ~stripped.is_in(file.source.missing)
    return pl.when(is_some).then(text if with_blanks else stripped)


def id_text(file: LogFile, name: str) -> pl.Expr:
    """The id in column ``name`` as text by the rule; null where there is none, or where a float cannot hold it."""
    dtype, text = file.schema[name], text_of(file, name)
    if dtype.is_integer():
        return text
    if dtype.is_float():
        return pl.when(_is_exact(pl.col(name), dtype)).then(text)
    text = text.str.replace(_POINT_ZERO, "${1}")
    return pl.when(text.str.contains(_UUID)).then(text.str.to_lowercase()).otherwise(text)


def id_number(file: LogFile, name: str) -> pl.Expr:
    """The id in column ``name`` as int64; null where there is none, or where int64 or a float cannot hold it."""
    dtype, raw = file.schema[name], pl.col(name)
    if dtype.is_integer():
        return raw.cast(pl.Int64, strict=False)
    if dtype.is_float():
        return _whole_of_float(raw, dtype)
    return whole_of_text(text_of(file, name))


def id_type(
    files: list[LogFile], name: str, text_among: Callable[[LogFile, str], str | None] | None = None
) -> pl.DataType:
    """``Int64`` or ``String``: how the ids in column ``name`` are read, the same in every file.

    ``text_among`` answers as :func:`text_among_ids` does, for files that have been read already.
    """
    found = text_among or text_among_ids
    return pl.String() if any(found(file, name) is not None for file in files) else pl.Int64()


def text_among_ids(file: LogFile, name: str) -> str | None:
    """The first id in column ``name`` that is no whole number of int64; None where there is none.

    Rows that are broken or have no other id do not count: a line that is no row would make a column one of text.
    Only ids that are not plain as they stand are looked at closely: the look takes five times as long.
    """
    dtype = file.schema[name]
    if file.is_empty or dtype == pl.Null or (dtype.is_integer() and dtype != pl.UInt64):
        return None
    rows = file.scan.filter(file.broken.is_null())
    if file.is_text:
        rows = rows.filter(~_is_plain(pl.col(name))).filter(_is_row(file))
    with reading(file.path):
        text, number = id_text(file, name), id_number(file, name)
        is_sound = (text.str.len_bytes() <= MAX_ID_BYTES) & ~text.str.contains(NOT_UTF8, literal=True)
        is_text = is_sound & (number.is_null() | text.str.contains(_LEADING_ZERO))
        found = rows.filter(is_text).select(text.alias("id")).head(1).collect(engine="streaming")["id"].to_list()
    return str(found[0]) if found else None


def whole_of_text(text: pl.Expr) -> pl.Expr:
    """The whole number that ``text`` is, leading zeros or none, as int64; null where it is none.

    Forms that are rare are looked for only where the common ones have not been found.
    """
    plain = text.cast(pl.Int64, strict=False)
    rest = pl.when(plain.is_null()).then(text)
    return pl.coalesce(plain, rest.map_batches(_whole_of_rest, return_dtype=pl.Int64(), is_elementwise=True))


def _is_row(file: LogFile) -> pl.Expr:
    return pl.all_horizontal(pl.col(name).is_not_null() for name in file.needed)


def _is_plain(ids: pl.Expr) -> pl.Expr:
    return (ids.cast(pl.Int64, strict=False).cast(pl.String) == ids).fill_null(value=False)


def _whole_of_rest(text: pl.Series) -> pl.Series:
    if text.null_count() == len(text):
        return pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
    column = pl.col(text.name)
    pointed = column.str.extract(_POINT_ZERO, 1).cast(pl.Int64, strict=False)
    is_grouped = column.str.contains(_THOUSANDS)
    bare = column.str.replace_all(",", "").str.replace(r"\.0*$", "")
    grouped = pl.when(is_grouped).then(bare).cast(pl.Int64, strict=False)
    scientific = pl.when(column.str.contains(_SCIENTIFIC)).then(column).cast(pl.Float64, strict=False)
    value = _whole_of_float(scientific, pl.Float64())
    return text.to_frame().select(pl.coalesce(pointed, grouped, value)).to_series()


def _whole_of_float(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    is_whole = _is_exact(value, dtype) & (value.floor() == value)
    return pl.when(is_whole).then(value).cast(pl.Int64, strict=False)


def _is_exact(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Beyond 2^53, in float32 2^24, neighbouring whole numbers are one float."""
    return value.is_not_nan() & (value.abs() <= (2**53 if dtype == pl.Float64 else 2**24))


def kind_text(file: LogFile, name: str) -> pl.Expr:
    """The kind of event in column ``name`` by :func:`kind_of`; null where there is none."""
    return text_of(file, name).map_batches(_kinds_of, return_dtype=pl.String(), is_elementwise=True)


def kind_of(text: str) -> str:
    """A kind of event by its value: ``4.50`` and ``4.5`` are one, ``True`` and ``true``; ``007`` is text."""
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.lower()
    if not _NUMBER.fullmatch(text) or not any(map(str.isdigit, text)):
        return text
    value = Decimal(text).normalize()
    return format(value, "f") if value else "0"


def _kinds_of(text: pl.Series) -> pl.Series:
    unique = text.unique()
    kinds = pl.Series([None if each is None else kind_of(each) for each in unique], dtype=pl.String)
    return text.replace_strict(unique, kinds, return_dtype=pl.String)
