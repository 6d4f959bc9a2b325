"""Tell the broken rows of a log from the sound ones, and keep the broken ones with the reason."""

from pathlib import Path

import polars as pl

from configs.errors import DataError
from configs.schema import ColumnsConfig
from configs.schema.features import column_of
from data_pipeline.prepare.read.feature_columns import event_column, reasons_of, typed_column, typed_value
from data_pipeline.prepare.read.formats import scan_file
from data_pipeline.prepare.read.sources import LogFile, column_names, reading, text_id
from data_pipeline.prepare.read.times import MAX_MS, NS_PER_MS, nanoseconds

REASON = "reason"
PLACE = ("log_file", "log_row")
"""Columns of a quarantined row: the file that it came from, and its number there, from 0."""
MAX_ID_BYTES = 1024
"""A longer id is a field that swallowed its neighbours, say after a quote that was never closed."""
_NOT_UTF8 = "\ufffd"
_TYPED = {key: f"typed_{key}" for key in ("user", "item", "timestamp")}


def typed_rows(
    file: LogFile, columns: ColumnsConfig, id_types: dict[str, pl.DataType], first_row: int = 0
) -> pl.LazyFrame:
    """``file`` as user, item, timestamp (int64 nanoseconds), event_type if any, its features, ``row``, and
    ``reason``: null where sound.

    From ``first_row`` on, which Parquet finds without reading what is before it.
    """
    names = column_names(columns, file.features)
    scan = scan_file(file.path, names, file.source, first_row).rows if first_row else file.scan
    rows = _with_reason(file, scan, names, id_types)
    out = {key: pl.col(_TYPED[key]) for key in ("user", "item", "timestamp")}
    if "event_type" in names:
        out["event_type"] = pl.col(names["event_type"]).cast(pl.String)
    out |= {event_column(name): pl.col(typed_column(name)) for name in file.features}
    typed = rows.select(**out, reason=REASON).with_row_index("row", offset=first_row)
    return typed.with_columns(pl.col("row").cast(pl.Int64))


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
    """Write the broken rows of ``file``, with all their columns as they came, to ``folder/part-<part>.parquet``.

    With ``reason``, ``log_file`` and ``log_row``; the log's own column of such a name is kept as ``log_<name>``.
    """
    names = column_names(columns, file.features)
    clashes = {name: f"log_{name}" for name in (REASON, *PLACE) if name in file.schema}
    for name in clashes:
        if name in names.values():
            raise DataError(f"{file.path}: column {name!r} is used as an event's column; rename it in the log")
    rows = file.scan.rename(clashes).with_row_index("log_row").with_columns(pl.col("log_row").cast(pl.Int64))
    broken = _with_reason(file, rows, names, id_types).filter(pl.col(REASON).is_not_null())
    folder.mkdir(exist_ok=True)
    with reading(file.path):
        broken.drop(*_TYPED.values(), *map(typed_column, file.features)).with_columns(
            log_file=pl.lit(file.name or str(file.path))
        ).sink_parquet(folder / f"part-{part:05d}.parquet")


def _with_reason(
    file: LogFile, rows: pl.LazyFrame, names: dict[str, str], id_types: dict[str, pl.DataType]
) -> pl.LazyFrame:
    """``rows`` of ``file`` with their typed columns beside them, and ``reason``: the first thing wrong, or null.

    In two steps, since Polars would work a typed column out again for each reason that looks at it.
    """
    typed = {_TYPED[key]: _id(file, names[key], id_types[key]) for key in ("user", "item")}
    time = nanoseconds(names["timestamp"], file.schema[names["timestamp"]], file.source.time_unit)
    reasons = [
        file.broken,
        *_reasons_of_id(file, names["user"], "user", id_types["user"]),
        *_reasons_of_id(file, names["item"], "item", id_types["item"]),
        *_reasons_of_time(file, names["timestamp"]),
    ]
    typed |= {
        typed_column(name): typed_value(feature, *_values_of(file, name)) for name, feature in file.features.items()
    }
    for name, feature in file.features.items():
        text, _, is_number = _values_of(file, name)
        reasons += reasons_of(name, feature, text, is_number)
    rows = rows.with_columns(**typed, **{_TYPED["timestamp"]: time})
    return rows.with_columns(pl.coalesce(reasons).alias(REASON))


def _values_of(file: LogFile, name: str) -> tuple[pl.Expr, pl.Expr, bool]:
    """A feature's column as text (null where blank or a word for nothing), as it is, and whether it is numeric."""
    column = column_of(name, file.features[name])
    return text_id(file, column), pl.col(column), file.schema[column].is_numeric()


def _id(file: LogFile, name: str, id_type: pl.DataType) -> pl.Expr:
    """The id as ``id_type``; null where it is missing, empty or beyond int64."""
    if id_type == pl.Int64:
        id_ = text_id(file, name) if file.is_text else pl.col(name)
        return id_.cast(pl.Int64, strict=False)
    return text_id(file, name)


def _reasons_of_id(file: LogFile, name: str, key: str, id_type: pl.DataType) -> list[pl.Expr]:
    typed = pl.col(_TYPED[key])
    reasons = [_when(typed.is_null(), f"null_{key}")]
    if id_type == pl.String:
        reasons.append(_when(typed.str.contains(_NOT_UTF8, literal=True), f"{key}_not_utf8"))
        reasons.append(_when(typed.str.len_bytes() > MAX_ID_BYTES, f"{key}_too_long"))
    elif not file.is_text:
        reasons.insert(0, _when(typed.is_null() & pl.col(name).is_not_null(), f"{key}_out_of_range"))
    return reasons


def _reasons_of_time(file: LogFile, name: str) -> list[pl.Expr]:
    raw, time = pl.col(name), pl.col(_TYPED["timestamp"])
    is_missing = raw.is_null()
    if file.schema[name] == pl.String:
        text = pl.when(time.is_null()).then(raw.str.strip_chars())
        is_missing |= ((text == "") | text.is_in(file.source.missing)).fill_null(value=False)
    return [
        _when(is_missing, "null_timestamp"),
        _when(time.is_null(), "non_integer_timestamp"),
        _when(time < 0, "negative_timestamp"),
        _when(time < min(file.source.earliest_ms, MAX_MS) * NS_PER_MS, "timestamp_too_early"),
        _when(time >= min(file.source.latest_ms, MAX_MS) * NS_PER_MS, "timestamp_too_late"),
    ]


def _when(is_so: pl.Expr, reason: str) -> pl.Expr:
    return pl.when(is_so).then(pl.lit(reason))
