"""Tell the broken rows of a log from the sound ones, and keep the broken ones with the reason."""

from pathlib import Path

import polars as pl

from configs.errors import DataError
from configs.schema import ColumnsConfig
from data_pipeline.prepare.sources import LogFile, column_names, reading

REASON = "reason"


def typed_rows(file: LogFile, columns: ColumnsConfig, id_types: dict[str, pl.DataType]) -> pl.LazyFrame:
    """``file`` as user, item, timestamp (int64 ms), event_type if any, ``row``, and ``reason``: null where sound."""
    names = column_names(columns)
    user, item = (_id(file, names[key], id_types[key]) for key in ("user", "item"))
    time = _milliseconds(file, names["timestamp"])
    out = {"user": user, "item": item, "timestamp": time, REASON: _reason(names, user, item, time)}
    if "event_type" in names:
        out["event_type"] = pl.col(names["event_type"]).cast(pl.String)
    return file.scan.select(**out).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))


def check_fraction(rows_quarantined: dict[str, int], rows_read: int, max_bad_fraction: float) -> None:
    """Raise :class:`DataError` when more than ``max_bad_fraction`` of the rows read are broken."""
    num_bad = sum(rows_quarantined.values())
    if num_bad > max_bad_fraction * rows_read:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rows_quarantined.items())
        raise DataError(
            f"{num_bad:,} of {rows_read:,} rows are broken ({reasons}): a fraction of {num_bad / rows_read:.6g}, "
            f"more than data.max_bad_fraction={max_bad_fraction}; mend the log or raise data.max_bad_fraction"
        )


def write_quarantine(
    file: LogFile, columns: ColumnsConfig, id_types: dict[str, pl.DataType], folder: Path, part: int
) -> None:
    """Write the broken rows of ``file``, with all their columns as they came, to ``folder/part-<part>.parquet``."""
    names = column_names(columns)
    user, item = (_id(file, names[key], id_types[key]) for key in ("user", "item"))
    reason = _reason(names, user, item, _milliseconds(file, names["timestamp"]))
    rows = file.scan.rename({REASON: f"log_{REASON}"}) if REASON in file.schema else file.scan
    if REASON in file.schema and REASON in names.values():
        raise DataError(f"{file.path}: column {REASON!r} is used as an event's column; rename it in the log")
    folder.mkdir(exist_ok=True)
    with reading(file.path):
        rows.with_columns(reason.alias(REASON)).filter(pl.col(REASON).is_not_null()).sink_parquet(
            folder / f"part-{part:05d}.parquet"
        )


def _id(file: LogFile, name: str, id_type: pl.DataType) -> pl.Expr:
    """The id as ``id_type``; null where it is missing, empty or beyond int64."""
    if id_type == pl.Int64:
        return pl.col(name).cast(pl.Int64, strict=False)
    text = pl.col(name).cast(pl.String)
    return pl.when(text != "").then(text)


def _milliseconds(file: LogFile, name: str) -> pl.Expr:
    """The time as int64 milliseconds, negative ones too; null where it is missing or no whole number."""
    time, dtype = pl.col(name), file.schema[name]
    if dtype == pl.Datetime:
        return time.dt.epoch("ms")
    if dtype.is_float():
        return _whole(time)
    if dtype == pl.String:
        text = time.str.strip_chars()
        return pl.coalesce(text.cast(pl.Int64, strict=False), _whole(text.cast(pl.Float64, strict=False)))
    return time.cast(pl.Int64, strict=False)


def _whole(number: pl.Expr) -> pl.Expr:
    """``number`` as int64 where it is a whole one; null elsewhere (also NaN and infinities)."""
    return pl.when(number.floor() == number).then(number.cast(pl.Int64, strict=False))


def _reason(names: dict[str, str], user: pl.Expr, item: pl.Expr, time: pl.Expr) -> pl.Expr:
    """The first thing that is wrong with a row, or null."""
    raw_time = pl.col(names["timestamp"])
    is_time_missing = raw_time.is_null() | (raw_time.cast(pl.String) == "").fill_null(value=False)
    return (
        pl.when(_is_beyond_int64(names["user"], user))
        .then(pl.lit("user_out_of_range"))
        .when(user.is_null())
        .then(pl.lit("null_user"))
        .when(_is_beyond_int64(names["item"], item))
        .then(pl.lit("item_out_of_range"))
        .when(item.is_null())
        .then(pl.lit("null_item"))
        .when(is_time_missing)
        .then(pl.lit("null_timestamp"))
        .when(time.is_null())
        .then(pl.lit("non_integer_timestamp"))
        .when(time < 0)
        .then(pl.lit("negative_timestamp"))
    )


def _is_beyond_int64(name: str, typed: pl.Expr) -> pl.Expr:
    raw = pl.col(name)
    return typed.is_null() & raw.is_not_null() & (raw.cast(pl.String) != "")
