"""Tell the broken rows of a log from the sound ones, and keep the broken ones with the reason."""

from pathlib import Path

import polars as pl

from configs.errors import DataError
from configs.schema import ColumnsConfig
from configs.schema.features import column_of
from configs.schema.source import Layout
from data_pipeline.prepare.read.feature_columns import event_column, reasons_of, typed_column, typed_value
from data_pipeline.prepare.read.id_values import MAX_ID_BYTES, NOT_UTF8, id_number, id_text, kind_text, text_of
from data_pipeline.prepare.read.sources import LogFile, column_names, reading
from data_pipeline.prepare.read.times import MAX_MS, NS_PER_MS, nanoseconds

REASON = "reason"
LOG_POSITION = ("log_file", "log_row")
"""Columns of a quarantined row: the file that it came from, and its number there, from 0."""
_TYPED = {key: f"typed_{key}" for key in ("user", "item", "timestamp")}
_KIND = "typed_event_type"
_NUMBER = "raw_row_number"


def typed_rows(
    file: LogFile, columns: ColumnsConfig, id_types: dict[str, pl.DataType], first_row: int = 0
) -> pl.LazyFrame:
    """``file`` as user, item, timestamp (int64 nanoseconds), event_type if any, its features, ``row``, and
    ``reason``: null where sound.

    From ``first_row`` on, which Parquet finds without reading what is before it.
    """
    names = column_names(columns, file.features)
    scan = file.scan_from(names, first_row).rows if first_row else file.scan
    rows = _with_reason(file, scan, names, id_types, first_row)
    out = {key: pl.col(_TYPED[key]) for key in ("user", "item", "timestamp")}
    if "event_type" in names:
        out["event_type"] = pl.col(_KIND)
    out |= {event_column(name): pl.col(typed_column(name)) for name in file.features}
    return rows.select(**out, reason=REASON, row=pl.col(_NUMBER).cast(pl.Int64))


def check_fraction(rows_quarantined: dict[str, int], rows_read: int, max_bad_fraction: float) -> None:
    """Raise :class:`DataError` when more than ``max_bad_fraction`` of the rows read are broken."""
    num_bad = sum(rows_quarantined.values())
    if num_bad > max_bad_fraction * rows_read:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in rows_quarantined.items())
        raise DataError(
            f"{num_bad:,} of {rows_read:,} rows are broken ({reasons}): a fraction of {num_bad / rows_read:.6g}, "
            f"more than data.max_bad_fraction={max_bad_fraction}; {_advice(rows_quarantined)}"
        )


def check_all_read(file: LogFile, num_rows: int) -> None:
    """Raise :class:`DataError` where the reader gave fewer rows of ``file`` than its lines and quotes say it has."""
    if num_rows < file.num_records:
        raise DataError(
            f"{file.path} has {file.num_records:,} rows by its line ends and quotes, of which {num_rows:,} could be "
            f"read; set data.source.quote, data.source.escape and data.source.separator as it is written, or fix it"
        )


def _advice(rows_quarantined: dict[str, int]) -> str:
    """What helps against the reason that most of the rows are broken for."""
    most = max(rows_quarantined, key=rows_quarantined.__getitem__)
    keys = {
        "not_utf8": "set data.source.encoding, such as latin-1 or cp1252, where the text is no UTF-8",
        "too_many_fields": "set data.source.separator, .quote or .escape as the files are written",
        "timestamp_too_early": "set data.source.time_unit, or data.source.earliest_time",
        "timestamp_too_late": "set data.source.time_unit, or data.source.latest_time",
    }
    found = next((advice for reason, advice in keys.items() if most.endswith(reason)), "fix the log")
    return f"{found}, or raise data.max_bad_fraction"


def write_quarantine(
    file: LogFile, columns: ColumnsConfig, id_types: dict[str, pl.DataType], folder: Path, part: int
) -> None:
    """Write the broken rows of ``file``, with all their columns as they came, to ``folder/part-<part>.parquet``.

    With ``reason``, ``log_file`` and ``log_row``; the log's own column of such a name is kept as ``log_<name>``.
    """
    names = column_names(columns, file.features)
    clashes = {name: f"log_{name}" for name in (REASON, *LOG_POSITION) if name in file.schema}
    for name in clashes:
        if name in names.values():
            raise DataError(f"{file.path}: column {name!r} is used as an event's column; rename it in the log")
    rows = file.scan.rename(clashes).with_row_index("log_row").with_columns(pl.col("log_row").cast(pl.Int64))
    broken = _with_reason(file, rows, names, id_types).filter(pl.col(REASON).is_not_null())
    folder.mkdir(exist_ok=True)
    with reading(file.path):
        broken.drop(_NUMBER, _KIND, *_TYPED.values(), *map(typed_column, file.features), strict=False).with_columns(
            log_file=pl.lit(file.name or str(file.path))
        ).sink_parquet(folder / f"part-{part:05d}.parquet")


def _with_reason(
    file: LogFile, rows: pl.LazyFrame, names: dict[str, str], id_types: dict[str, pl.DataType], first_row: int = 0
) -> pl.LazyFrame:
    """``rows`` of ``file`` with their typed columns beside them, and ``reason``: the first thing wrong, or null.

    In two steps, since Polars would work a typed column out again for each reason that looks at it.
    """
    typed = {_TYPED[key]: _id(file, names[key], id_types[key]) for key in ("user", "item")}
    typed[_TYPED["timestamp"]] = _time(file, names)
    if "event_type" in names:
        typed[_KIND] = kind_text(file, names["event_type"])
    reasons = [
        file.broken,
        *_reasons_of_id(file, names["user"], "user", id_types["user"]),
        *_reasons_of_id(file, names["item"], "item", id_types["item"]),
        *(_reasons_of_time(file, names["timestamp"]) if "timestamp" in names else []),
    ]
    typed |= {
        typed_column(name): typed_value(feature, *_values_of(file, name)) for name, feature in file.features.items()
    }
    for name, feature in file.features.items():
        text, _, is_number = _values_of(file, name)
        reasons += reasons_of(name, feature, pl.col(typed_column(name)), text, is_number)
    rows = rows.with_row_index(_NUMBER, offset=first_row).with_columns(**typed)
    return rows.with_columns(pl.coalesce(reasons).alias(REASON))


def _values_of(file: LogFile, name: str) -> tuple[pl.Expr, pl.Expr, bool]:
    """A feature's column as text (null where blank or a word for nothing), as it is, and whether it is numeric."""
    column = column_of(name, file.features[name])
    text = text_of(file, column, with_blanks=file.layout is not Layout.DELIMITED)
    return text, pl.col(column), file.schema[column].is_numeric()


def _id(file: LogFile, name: str, id_type: pl.DataType) -> pl.Expr:
    """The id as ``id_type``; null where it is missing, empty or cannot be held."""
    return id_number(file, name) if id_type == pl.Int64 else id_text(file, name)


def _time(file: LogFile, names: dict[str, str]) -> pl.Expr:
    """Nanoseconds; in a log without times as many milliseconds as rows are before it in all files."""
    if "timestamp" not in names:
        return (file.first_number + pl.col(_NUMBER).cast(pl.Int64)) * NS_PER_MS
    return nanoseconds(names["timestamp"], file.schema[names["timestamp"]], file.source.time_unit)


def _reasons_of_id(file: LogFile, name: str, key: str, id_type: pl.DataType) -> list[pl.Expr]:
    typed = pl.col(_TYPED[key])
    reasons = [_when(typed.is_null(), f"null_{key}")]
    if id_type == pl.String:
        reasons.append(_when(typed.str.contains(NOT_UTF8, literal=True), f"{key}_not_utf8"))
        reasons.append(_when(typed.str.len_bytes() > MAX_ID_BYTES, f"{key}_too_long"))
    elif not file.schema[name].is_numeric():
        is_not_utf8 = pl.col(name).cast(pl.String, strict=False).str.contains(NOT_UTF8, literal=True)
        reasons.insert(0, _when(typed.is_null() & is_not_utf8, f"{key}_not_utf8"))
    if file.schema[name].is_float():
        reasons.insert(0, _when(typed.is_null() & pl.col(name).is_not_nan(), f"{key}_out_of_range"))
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
