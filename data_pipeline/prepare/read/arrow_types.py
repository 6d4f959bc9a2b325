"""Arrow's columns as Polars takes them: any type can be in a file, and most of them are in nobody's way.

Polars knows fewer types than Arrow, and panics on some that it does not know. What it lacks is turned into what it
has (a zone that is an offset into UTC, a wide decimal and a UUID into text); of the rest it gets a struct that holds
a text, which is kept in the quarantine and fits nothing that events are made of.
"""

from functools import lru_cache
from zoneinfo import available_timezones

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

_UUID_BYTES = 16
_NOT_TAKEN = (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, TypeError, ValueError)


def frame_of(table: pa.Table) -> pl.DataFrame:
    """``table`` for Polars, which trusts strings to be UTF-8; Arrow does not look. U+FFFD stands for what is none."""
    for index, name in enumerate(table.schema.names):
        column = table.column(index)
        taken = _valid(_plain(column))
        if taken is not column:
            table = table.set_column(index, name, taken)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame), "a table is a frame"
    return frame


def words_of(dtype: pl.DataType) -> str:
    """The name of a type, without what is inside of it."""
    return str(dtype.base_type())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """``column`` in a type that Polars takes."""
    dtype = column.type
    if isinstance(dtype, pa.BaseExtensionType):
        storage = pa.chunked_array([chunk.storage for chunk in column.chunks], dtype.storage_type)
        return _plain(storage)
    if _is_uuid(dtype):
        return _uuid_text(column)
    if pa.types.is_run_end_encoded(dtype):
        chunks = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return _plain(pa.chunked_array(chunks, dtype.value_type))
    if pa.types.is_dictionary(dtype) and not _is_text(dtype.value_type):
        return _plain(column.cast(dtype.value_type))
    if pa.types.is_timestamp(dtype) and dtype.tz is not None and dtype.tz not in _zones():
        return column.cast(pa.timestamp(dtype.unit, "UTC"))
    if pa.types.is_decimal256(dtype):
        return column.cast(pa.string())
    if pa.types.is_string_view(dtype):
        return column.cast(pa.large_string())
    return column if _is_taken(dtype) else _as_texts(column)


def _valid(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """``column``, its strings as UTF-8."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise
        return _mended(column)
    return column


def _is_uuid(dtype: pa.DataType) -> bool:
    """By its 16 bytes: no writer keeps text in as many bytes for every row."""
    return bool(pa.types.is_fixed_size_binary(dtype) and dtype.byte_width == _UUID_BYTES)


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype))


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory"})


@lru_cache(maxsize=1024)
def _is_taken(dtype: pa.DataType) -> bool:
    """Whether Polars takes a column of ``dtype``; a nested type is asked for its parts first, since some panic."""
    if pa.types.is_nested(dtype) and not pa.types.is_union(dtype):
        inner = [dtype.field(k).type for k in range(dtype.num_fields)]
        if any(not _is_inner_taken(each) for each in inner):
            return False
    try:
        pl.from_arrow(pa.table({"column": pa.chunked_array([], dtype)}))
    except _NOT_TAKEN:
        return False
    return True


def _is_inner_taken(dtype: pa.DataType) -> bool:
    has_zone = pa.types.is_timestamp(dtype) and dtype.tz is not None and dtype.tz not in _zones()
    return not (has_zone or pa.types.is_decimal256(dtype) or isinstance(dtype, pa.BaseExtensionType)) and _is_taken(
        dtype
    )


def _as_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
    return pa.chunked_array([pa.StructArray.from_arrays([texts], names=["text"])])


def _uuid_text(uuids: pa.ChunkedArray) -> pa.ChunkedArray:
    """As RFC 9562 writes them: ``c232ab00-9414-11ec-b3c8-9f6bdeced846``."""
    binary = pl.Series("uuid", uuids.cast(pa.binary()), dtype=pl.Binary)
    digits, start, parts = binary.bin.encode("hex").str, 0, []
    for length in (8, 4, 4, 4, 12):
        parts.append(digits.slice(start, length))
        start += length
    text = pl.select(pl.concat_str(parts, separator="-").alias("uuid")).to_series().to_arrow()
    return pa.chunked_array([text.cast(pa.large_string())])


def _mended(strings: pa.ChunkedArray) -> pa.ChunkedArray:
    binary = strings.cast(pa.large_binary() if pa.types.is_large_string(strings.type) else pa.binary())
    texts = [None if each is None else each.decode(errors="replace") for each in binary.to_pylist()]
    return pa.chunked_array([pa.array(texts, strings.type)])
