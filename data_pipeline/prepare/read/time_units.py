"""``data.source.time_unit=auto``: the unit in which the log's numbers are dates; floats that cannot hold times."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import polars as pl

from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.source import TimeUnit
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.parquet import integer_bounds
from data_pipeline.prepare.read.sources import LogFile, reading
from data_pipeline.prepare.read.times import nanoseconds, without_thousands

_FIRST_S, _END_S = 315_532_800, 4_102_444_800
"""1980 to 2100: a number that is such a moment in one unit is none in another."""
WINDOWS = {
    TimeUnit.YYYYMMDD: [(19_800_101, 21_000_101), (19_800_101_000_000, 21_000_101_000_000)],
    TimeUnit.S: [(_FIRST_S, _END_S)],
    TimeUnit.MS: [(_FIRST_S * 10**3, _END_S * 10**3)],
    TimeUnit.US: [(_FIRST_S * 10**6, _END_S * 10**6)],
    TimeUnit.NS: [(_FIRST_S * 10**9, _END_S * 10**9)],
}
WORDS = {
    TimeUnit.YYYYMMDD: "dates written as numbers",
    TimeUnit.S: "seconds",
    TimeUnit.MS: "milliseconds",
    TimeUnit.US: "microseconds",
    TimeUnit.NS: "nanoseconds",
}
_OTHERS_AT_MOST = 0.01
"""Share of the dates that may be dates in another unit: broken rows, which are quarantined and counted."""
_ROWS_FOR_FORM = 1000
_FLOAT_BITS = {"Float64": 64, "Float32": 32, "Float16": 16}


@dataclass(kw_only=True, slots=True)
class TimeCounts:
    """How many of a file's times are numbers, and in which unit they are dates."""

    numbers: int = 0
    dates: dict[str, int] = field(default_factory=dict)
    """By unit."""
    smallest: float = 0.0
    largest: float = 0.0
    """Of the numbers; 0 where there are none."""
    float_bits: int = 0
    """Of the column's type, where it is a float."""
    strange: str = ""
    """A text of a file whose first texts are no times at all."""

    def to_json(self) -> str:
        """For a row of Spark's."""
        return json.dumps(asdict(self))


def count_times(file: LogFile, name: str) -> TimeCounts:
    """Look at all times of ``file``, in column ``name``; by a Parquet file's statistics where those suffice."""
    dtype = file.schema[name]
    if not (dtype.is_numeric() or dtype == pl.String):
        return TimeCounts()
    if dtype.is_integer() and (found := _counts_of_statistics(file, name)) is not None:
        return found
    number = pl.col(name)
    if dtype == pl.String:
        number = without_thousands(number.str.strip_chars())
    number = number.cast(pl.Float64, strict=False)
    number = pl.when(number.is_finite()).then(number)
    units = {
        unit.value: pl.any_horizontal(*(number.is_between(low, end, closed="left") for low, end in windows)).sum()
        for unit, windows in WINDOWS.items()
    }
    with reading(file.path):
        totals = file.scan.select(
            *(count.alias(unit) for unit, count in units.items()),
            number.count().alias("numbers"),
            number.min().alias("smallest"),
            number.max().alias("largest"),
        ).collect(engine="streaming")
        row = totals.row(0, named=True)
        strange = _strange_text(file, name) if dtype == pl.String else ""
    return TimeCounts(
        numbers=row["numbers"],
        dates={unit: row[unit] for unit in units if row[unit]},
        smallest=row["smallest"] or 0.0,
        largest=row["largest"] or 0.0,
        float_bits=_FLOAT_BITS.get(str(dtype), 0),
        strange=strange,
    )


def _counts_of_statistics(file: LogFile, name: str) -> TimeCounts | None:
    """Where each row group's smallest and largest time are dates in one unit, so are all between."""
    with reading(file.path):
        bounds = integer_bounds(file.path, name)
    if not bounds:
        return None
    dates: Counter[str] = Counter()
    for low, high, number in bounds:
        units = [
            unit for unit, windows in WINDOWS.items() if any(first <= low and high < end for first, end in windows)
        ]
        if not units:
            return None
        dates[units[0].value] += number
    return TimeCounts(
        numbers=sum(dates.values()),
        dates=dict(dates),
        smallest=float(min(low for low, _, _ in bounds)),
        largest=float(max(high for _, high, _ in bounds)),
    )


def _strange_text(file: LogFile, name: str) -> str:
    """The first text where none of the first rows' is a time."""
    text = pl.col(name).str.strip_chars()
    rows = file.scan.filter(file.broken.is_null()).select(name).head(_ROWS_FOR_FORM)
    present = rows.filter(pl.col(name).is_not_null() & (text != "") & ~text.is_in(file.source.missing))
    looked = present.select(text=pl.col(name), time=nanoseconds(name, pl.String(), TimeUnit.US)).collect()
    return str(looked["text"][0]) if len(looked) and looked["time"].null_count() == len(looked) else ""


def refuse_unreadable_times(files: Sequence[LogFile], counts: Sequence[TimeCounts], name: str) -> None:
    """Raise :class:`DataError` for floats whose step is too large for their times, and texts that are no times."""
    for file, found in zip(files, counts, strict=True):
        label = file.name or str(file.path)
        if found.strange:
            raise DataError(
                f"{label}: column {name!r} (data.columns.timestamp) holds texts like {found.strange[:60]!r}, "
                f"which are read as no time; write numbers, or dates with the year first, like 2020-01-31 or "
                f"2020-01-31T10:20:30+02:00"
            )
        step = _step_of(found)
        if step > 1:
            raise DataError(
                f"{label}: column {name!r} (data.columns.timestamp) is float{found.float_bits}, whose numbers "
                f"near {found.largest:.0f} are {step:,.0f} apart: times that differ by less cannot be told from "
                f"each other; write them as int64 or float64"
            )


def _step_of(found: TimeCounts) -> float:
    """Between neighbouring floats at the largest number; 0 for other columns.

    Nanoseconds in float64 are 256 apart today. They pass: it is how pandas keeps int64 with missing values.
    """
    digits = {32: 24, 16: 11}.get(found.float_bits)
    largest = max(abs(found.smallest), abs(found.largest))
    return 2.0 ** (math.frexp(largest)[1] - digits) if digits else 0.0


def chosen_unit(
    files: Sequence[LogFile], counts: Sequence[TimeCounts], name: str, fallback: TimeUnit
) -> tuple[TimeUnit, str]:
    """The unit of the log's numbers, and a line that says why; ``fallback`` where they are dates in none.

    Raises :class:`DataError` where files, or the rows of one, disagree.
    """
    total: Counter[str] = Counter()
    for found in counts:
        total.update(found.dates)
    numbers = sum(found.numbers for found in counts)
    if numbers == 0:
        return fallback, ""
    if all(sum(found.dates.values()) <= found.numbers / 2 for found in counts):
        # Times that count from a start of their own, as in many published logs, pass through dates of some unit.
        smallest, largest = _range_of(counts)
        return fallback, (
            f"data.source.time_unit=auto: the times, {smallest:.15g} to {largest:.15g}, are mostly dates in no unit; "
            f"they count as {WORDS[fallback]} ({fallback.value})"
        )
    unit, num_dates = max(total.items(), key=lambda pair: pair[1])
    others = sum(total.values()) - num_dates
    disagreeing = [file for file, found in zip(files, counts, strict=True) if _disagrees(found, unit)]
    if disagreeing or others > _OTHERS_AT_MOST * sum(total.values()) or num_dates < numbers / 2:
        raise _ambiguous(files, counts, name, numbers)
    share = f"{num_dates:,} of {numbers:,} numbers" if num_dates < numbers else f"all {numbers:,} numbers"
    return TimeUnit(unit), (
        f"data.source.time_unit=auto: times are {WORDS[TimeUnit(unit)]} ({unit}), in which {share} are dates "
        f"from 1980 to 2099"
    )


def _disagrees(found: TimeCounts, unit: str) -> bool:
    others = sum(found.dates.values()) - found.dates.get(unit, 0)
    return others > _OTHERS_AT_MOST * found.numbers


def _range_of(counts: Sequence[TimeCounts]) -> tuple[float, float]:
    found = [each for each in counts if each.numbers]
    return min(each.smallest for each in found), max(each.largest for each in found)


def _ambiguous(files: Sequence[LogFile], counts: Sequence[TimeCounts], name: str, numbers: int) -> DataError:
    """Names each unit that some numbers are dates in, with a file of it."""
    parts = []
    for unit in TimeUnit:
        having = [
            (found.dates[unit.value], file.name or str(file.path))
            for file, found in zip(files, counts, strict=True)
            if found.dates.get(unit.value)
        ]
        if having:
            parts.append(f"{sum(n for n, _ in having):,} as {WORDS[unit]} (such as in {max(having)[1]})")
    rest = numbers - sum(sum(found.dates.values()) for found in counts)
    parts += [f"{rest:,} in no unit"] if rest else []
    return DataError(
        f"column {name!r} (data.columns.timestamp): of {numbers:,} numbers, {' and '.join(parts)} would be dates "
        f"from 1980 to 2099; set data.source.time_unit to s, ms, us, ns or yyyymmdd, and write the files in one unit"
    )


def settle_times(
    files: list[LogFile],
    config: DataConfig,
    fallback: TimeUnit,
    progress: ProgressReporter,
    counts: Sequence[TimeCounts] | None = None,
) -> tuple[list[LogFile], DataConfig]:
    """``files`` and ``config`` with the unit of their times for ``auto``; ``counts`` where the times were looked at.

    Raises :class:`DataError` for times that cannot be read so.
    """
    name = config.columns.timestamp
    if not name:
        return files, config
    if counts is None:
        is_auto = config.source.time_unit is TimeUnit.AUTO
        counts = [count_times(f, name) if is_auto or f.schema[name].is_float() else TimeCounts() for f in files]
    if config.max_bad_fraction < 1:
        refuse_unreadable_times(files, counts, name)
    if config.source.time_unit is not TimeUnit.AUTO:
        return files, config
    unit, line = chosen_unit(files, counts, name, fallback)
    if line:
        progress.say(line)
    settled = [replace(file, source=replace(file.source, time_unit=unit)) for file in files]
    return settled, replace(config, source=replace(config.source, time_unit=unit))
