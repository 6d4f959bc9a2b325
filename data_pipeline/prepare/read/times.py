"""Times as the log writes them, as int64 milliseconds since 1970."""

import polars as pl

from configs.schema.source import TimeUnit

_PER_SECOND = {TimeUnit.S: 1, TimeUnit.MS: 10**3, TimeUnit.US: 10**6, TimeUnit.NS: 10**9}
_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")


def milliseconds(name: str, dtype: pl.DataType, unit: TimeUnit) -> pl.Expr:
    """Column ``name`` of ``dtype`` as milliseconds, negative ones too; null where it is missing or holds no time.

    Numbers count ``unit``; those of milliseconds must be whole, finer and coarser ones are rounded down. Text is such
    a number or like ``2020-01-31``, ``2020-01-31 10:20:30.5``, ``2020-01-31T10:20:30+02:00``; without a zone: UTC.
    """
    time = pl.col(name)
    if dtype in (pl.Datetime, pl.Date):
        return time.dt.epoch("ms")
    if dtype.is_float() or isinstance(dtype, pl.Decimal):
        return _of_number(time.cast(pl.Float64), unit)
    if dtype == pl.String:
        text = time.str.strip_chars()
        whole = _of_integer(text.cast(pl.Int64, strict=False), unit)
        rest = pl.when(whole.is_null()).then(text)
        others = rest.map_batches(lambda part: _of_rest(part, unit), return_dtype=pl.Int64(), is_elementwise=True)
        return pl.coalesce(whole, others)
    return _of_integer(time.cast(pl.Int64, strict=False), unit)


def _of_integer(time: pl.Expr, unit: TimeUnit) -> pl.Expr:
    """Seconds beyond what int64 milliseconds hold become the largest: they are out of any range of times."""
    if unit is TimeUnit.MS:
        return time
    if unit is TimeUnit.S:
        largest = (2**63 - 1) // 1000
        return time.clip(-largest, largest) * 1000
    return time.floordiv(_PER_SECOND[unit] // 1000)


def _of_number(time: pl.Expr, unit: TimeUnit) -> pl.Expr:
    if unit is TimeUnit.MS:
        return pl.when(time.floor() == time).then(time.cast(pl.Int64, strict=False))
    return (time * (1000 / _PER_SECOND[unit])).floor().cast(pl.Int64, strict=False)


def _of_rest(text: pl.Series, unit: TimeUnit) -> pl.Series:
    """What is no integer; most often nothing, and then the formats of dates are not tried at all."""
    if text.null_count() == len(text):
        return pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
    column = pl.col(text.name)
    number = _of_number(column.cast(pl.Float64, strict=False), unit)
    return text.to_frame().select(pl.coalesce(number, _of_text(column))).to_series()


def _of_text(text: pl.Expr) -> pl.Expr:
    """Only what starts like a date is parsed: a format costs ten times what the look does."""
    like_a_date = pl.when(text.str.contains(r"^\d{4}-\d{2}-\d{2}")).then(text)
    date = like_a_date.str.replace(r"^(.{10})[ T]+", "${1}T").str.replace(r" ?(?:Z|UTC|GMT)$", "+00:00")
    parsed = [
        date.str.to_datetime(form, time_unit="ms", strict=False, time_zone="UTC" if "%z" in form else None)
        for form in _FORMATS
    ]
    return pl.coalesce(*(time.dt.epoch("ms") for time in parsed))
