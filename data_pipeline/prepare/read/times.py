"""Times as the log writes them, as int64 nanoseconds since 1970: the order is taken at the log's own precision.

The store keeps milliseconds. What lies beyond them orders events, tells ties and duplicates apart, and stays in
another column where a log has it.
"""

import polars as pl

from configs.schema.source import TimeUnit

NS_PER_MS = 10**6
MAX_MS = (2**63 - 1) // NS_PER_MS
"""11 April 2262: later times count as this one, which lies beyond any ``data.source.latest_time``."""
MIN_NS, MAX_NS = -MAX_MS * NS_PER_MS, MAX_MS * NS_PER_MS
_NS = {TimeUnit.S: 10**9, TimeUnit.MS: 10**6, TimeUnit.US: 10**3, TimeUnit.NS: 1}
_NS_OF_DATETIME = {"ms": 10**6, "us": 10**3, "ns": 1}
_NS_OF_DAY = 86_400 * 10**9
_DECIMAL = r"^([+-]?)(\d{1,19})(?:\.(\d*))?$"
_THOUSANDS = r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*)?$"
_DATE = (
    r"^(\d{4})(?:-(\d{1,2})-|/(\d{1,2})/)(\d{1,2})"
    r"(?:[T ]+(\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?)?"
    r"\s*(?:Z|UTC|GMT|([+-])(\d{2})(?::?(\d{2}))?(?::?(\d{2}))?)?(?:\[[^\]]*\])?$"
)
"""ISO 8601, Postgres, DuckDB, MySQL, Spark, Java; year first, with dashes or slashes."""


def nanoseconds(name: str, dtype: pl.DataType, unit: TimeUnit) -> pl.Expr:
    """Column ``name`` of ``dtype`` as nanoseconds, negative ones too; null where it is missing or holds no time.

    Numbers count ``unit``; those of milliseconds must be whole; float64 seconds count to the microsecond, as fine as
    they resolve. Text is such a number, ``infinity``, or like ``2020-01-31``, ``2020-01-31 10:20:30.5``,
    ``2020-01-31T10:20:30+02``; without a zone: UTC.
    """
    time = pl.col(name)
    unit = TimeUnit.MS if unit is TimeUnit.AUTO else unit  # until it is settled, by all files together
    if dtype == pl.Date:
        return _scaled(time.to_physical().cast(pl.Int64), _NS_OF_DAY)
    if isinstance(dtype, pl.Datetime):
        return _scaled(time.to_physical(), _NS_OF_DATETIME[dtype.time_unit])
    if dtype.is_float():
        return _of_float(time.cast(pl.Float64), unit)
    if isinstance(dtype, pl.Decimal) and dtype.scale:
        return time.cast(pl.String).map_batches(
            lambda part: _of_text_of(part, unit), return_dtype=pl.Int64(), is_elementwise=True
        )
    if dtype == pl.String:
        text = time.str.strip_chars()
        whole = _of_integer(text.cast(pl.Int64, strict=False), unit)
        rest = pl.when(whole.is_null()).then(text)
        others = rest.map_batches(lambda part: _of_text_of(part, unit), return_dtype=pl.Int64(), is_elementwise=True)
        return pl.coalesce(whole, others)
    return _of_integer(time.cast(pl.Int64, strict=False), unit)


def split_nanoseconds(times: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Milliseconds, rounded down, and the nanoseconds beyond them, int32."""
    milliseconds = times // NS_PER_MS
    return milliseconds, (times - milliseconds * NS_PER_MS).cast(pl.Int32)


def _scaled(time: pl.Expr, ns: int) -> pl.Expr:
    """Units of ``ns`` as nanoseconds; what int64 does not hold becomes the largest, out of any range of times."""
    return time.clip(MIN_NS // ns, MAX_NS // ns) * ns


def _of_integer(time: pl.Expr, unit: TimeUnit) -> pl.Expr:
    if unit is TimeUnit.YYYYMMDD:
        return _of_day_number(time.cast(pl.String))
    return _scaled(time, _NS[unit])


def _of_day_number(digits: pl.Expr) -> pl.Expr:
    """``20200913``, or ``20200913122640``: a date written as a number."""
    padded = pl.when(digits.str.len_bytes() == 8).then(digits + "000000").otherwise(digits)
    found = padded.str.to_datetime("%Y%m%d%H%M%S", time_unit="ms", strict=False)
    return pl.when(padded.str.len_bytes() == 14).then(_scaled(found.to_physical(), NS_PER_MS))


def _of_float(time: pl.Expr, unit: TimeUnit) -> pl.Expr:
    """NaN, infinity and what int64 does not hold are no times."""
    whole = time.floor()
    integer = whole.cast(pl.Int64, strict=False)
    if unit is TimeUnit.YYYYMMDD or unit is TimeUnit.MS:
        return pl.when(whole == time).then(_of_integer(integer, unit))
    beyond = time - whole
    if unit is TimeUnit.S:
        # A float64 of today's seconds has a step of 0.2 us: to the microsecond it equals what was meant.
        fine = (beyond * 1e9).round()
        beyond = pl.when(whole.abs() < 2**22).then(fine).otherwise((beyond * 1e6).round() * 1e3)
    else:
        beyond = (beyond * _NS[unit]).floor()
    return _scaled(integer, _NS[unit]) + beyond.cast(pl.Int64, strict=False)


def _of_text_of(text: pl.Series, unit: TimeUnit) -> pl.Series:
    """What is no integer; most often nothing, and then no form of a date is tried at all."""
    if text.null_count() == len(text):
        return pl.Series(text.name, [None], dtype=pl.Int64).new_from_index(0, len(text))
    column = without_thousands(pl.col(text.name))
    number = pl.coalesce(_of_decimal(column, unit), _of_float(column.cast(pl.Float64, strict=False), unit))
    return text.to_frame().select(pl.coalesce(number, _of_date(column))).to_series()


def without_thousands(text: pl.Expr) -> pl.Expr:
    """``1,600,000,000`` as ``1600000000``, as spreadsheets group the digits of a number."""
    bare = text.str.replace_all(",", "", literal=True)
    return pl.when(text.str.contains(_THOUSANDS)).then(bare).otherwise(text)


def _of_decimal(text: pl.Expr, unit: TimeUnit) -> pl.Expr:
    """Digits with a point, to the last of them, which a float64 would round."""
    groups = text.str.extract_groups(_DECIMAL)
    sign, whole, beyond = (groups.struct.field(name) for name in ("1", "2", "3"))
    places = {TimeUnit.S: 9, TimeUnit.US: 3, TimeUnit.NS: 0}.get(unit)
    sign = pl.when(sign == "-").then(-1).otherwise(1)
    integer = whole.cast(pl.Int64, strict=False)
    if places is None:
        is_whole = beyond.fill_null("").str.strip_chars("0") == ""
        return pl.when(is_whole).then(_of_integer(sign * integer, unit))
    digits = ("0" + beyond.fill_null("").str.pad_end(places, "0").str.slice(0, places)).cast(pl.Int64, strict=False)
    return sign * (_scaled(integer, _NS[unit]) + digits)


def _of_date(text: pl.Expr) -> pl.Expr:
    """Dates; ``infinity``, as Postgres writes it, is the largest time and ``-infinity`` the smallest."""
    groups = text.str.extract_groups(_DATE)
    year, month, other, day, hour, minute, second, beyond, sign, *offset = (
        groups.struct.field(str(k)) for k in range(1, 13)
    )
    padded = [part.fill_null("0").str.zfill(2) for part in (pl.coalesce(month, other), day, hour, minute, second)]
    stamp = pl.concat_str([year, *padded])
    moment = stamp.str.to_datetime("%Y%m%d%H%M%S", time_unit="ms", strict=False).to_physical()
    hours, minutes, seconds = (part.fill_null("0").cast(pl.Int64, strict=False) for part in offset)
    ahead = (hours * 3600 + minutes * 60 + seconds) * 1000
    moment -= pl.when(sign == "-").then(-ahead).when(sign == "+").then(ahead).otherwise(0)
    nanos = beyond.fill_null("").str.pad_end(9, "0").str.slice(0, 9).cast(pl.Int64, strict=False)
    word = text.str.to_lowercase()
    endless = pl.when(word.is_in(["infinity", "+infinity"])).then(MAX_NS).when(word == "-infinity").then(MIN_NS)
    return pl.coalesce(_scaled(moment, NS_PER_MS) + nanos, endless)
