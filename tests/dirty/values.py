"""Broken and unusual ids and times."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl

from dirty.case import (
    AS_TEXT,
    CLEAN,
    START,
    TEXT_USERS,
    Case,
    Event,
    content,
    csv_text,
    files,
    frame,
    parquet,
    with_rows,
)

LARGEST = 2**63 - 1
LONG = "x" * 2000
UUID = "c232ab00-9414-11ec-b3c8-9f6bdeced846"
LETTERS: list[Event] = [(f"u{u}", f"i{i}", t) for u, i, t in CLEAN]
MANY_WAYS = ("1600", " 1600 ", "1600.0", "1600.", "+1600", "1.6e3", "1.6E+03", "1,600", "1,600.00")


def users_as(*values: object, dtype: pl.DataType | None = None) -> pl.DataFrame:
    """The clean events with a column of users that holds ``values`` in turn."""
    column = pl.Series("user_id", [values[k % len(values)] for k in range(len(CLEAN))], dtype=dtype)
    return frame().with_columns(column)


def time_of(milliseconds: object, zone: timezone = UTC) -> datetime:
    """The moment as an aware datetime."""
    assert isinstance(milliseconds, int), "clean times are whole"
    return datetime(1970, 1, 1, tzinfo=UTC).astimezone(zone) + timedelta(milliseconds=milliseconds)


def timed(form: str, zone: timezone = UTC) -> list[Event]:
    """The clean events with their times as text."""
    return [(u, i, time_of(t, zone).strftime(form)) for u, i, t in CLEAN]


def times_in(unit: int) -> pl.DataFrame:
    """The clean events with times that count ``unit`` a second, as integers."""
    return frame([(u, i, t * unit // 1000) for u, i, t in CLEAN])


MIDNIGHTS = [(u, i, t // 86_400_000 * 86_400_000) for u, i, t in CLEAN]
TOO_MANY = [(None, 1, START)] * 20

IDS = [
    Case(name="user is null", make=with_rows((None, 1, START)), reasons={"null_user": 1}),
    Case(name="item is null", make=with_rows((1, None, START), (2, None, START)), reasons={"null_item": 2}),
    Case(
        name="id beyond int64",
        make=with_rows((2**63, 1, START), user=pl.UInt64()),
        events=[*TEXT_USERS, (str(2**63), 1, START)],
        rule="no id has a range: the column is one of text",
    ),
    Case(
        name="decimal id beyond int64",
        make=with_rows((1, Decimal(10**19), START), item=pl.Decimal(20, 0)),
        events=[*((u, str(i), t) for u, i, t in CLEAN), (1, str(10**19), START)],
        rule="as above",
    ),
    Case(
        name="ids at both ends of int64",
        make=with_rows((-LARGEST - 1, LARGEST, START)),
        events=[*CLEAN, (-LARGEST - 1, LARGEST, START)],
        rule="negative ids are ids",
    ),
    Case(
        name="narrow and unsigned integer ids",
        make=parquet(lambda: frame(user=pl.Int8(), item=pl.UInt16())),
        rule="every integer type is one kind of id",
    ),
    Case(
        name="decimal ids without places",
        make=parquet(lambda: frame(user=pl.Decimal(20, 0))),
        rule="read as integers",
    ),
    Case(
        name="decimal ids with places",
        make=parquet(lambda: frame(user=pl.Decimal(20, 2))),
        rule="7.00 is 7",
    ),
    Case(
        name="float ids",
        make=parquet(lambda: frame(item=pl.Float64())),
        rule="whole numbers are integers, as pandas writes them where one is missing",
    ),
    Case(
        name="float ids of which one is missing, one infinite, one beyond what a float can tell apart",
        make=with_rows((1, float("nan"), START), (1, float("inf"), START), (1, 2.0**60, START), item=pl.Float64()),
        reasons={"item_out_of_range": 2, "null_item": 1},
    ),
    Case(
        name="a float id with a fraction",
        make=with_rows((4.5, 1, START), user=pl.Float64()),
        events=[*TEXT_USERS, ("4.5", 1, START)],
        rule="no whole number: the column is one of text, and 7.0 is the text 7",
    ),
    Case(
        name="boolean ids",
        make=parquet(lambda: users_as(True, False)),
        events=[(("true", "false")[k % 2], i, t) for k, (_, i, t) in enumerate(CLEAN)],
        rule="the texts true and false, as in JSON",
    ),
    Case(
        name="lists as ids",
        make=parquet(lambda: users_as([1, 2], [3])),
        says=("log.parquet", "'user_id'", "List"),
    ),
    Case(
        name="structs as ids",
        make=parquet(lambda: users_as({"a": 1})),
        says=("log.parquet", "'user_id'", "Struct"),
    ),
    Case(
        name="string ids",
        make=parquet(lambda: frame(AS_TEXT)),
        rule='by their value, as in every format: "7" is 7',
    ),
    Case(
        name="dictionary-encoded ids",
        make=parquet(lambda: frame(AS_TEXT, user=pl.Categorical())),
        rule="read as what they stand for",
    ),
    Case(
        name="binary ids that are UTF-8",
        make=parquet(lambda: frame(AS_TEXT).with_columns(pl.col("user_id").cast(pl.Binary))),
        rule="read as strings, as old Hive and Impala meant them",
    ),
    Case(
        name="binary ids that are no UTF-8",
        make=parquet(
            lambda: pl.concat(
                [
                    frame(AS_TEXT).with_columns(pl.col("user_id").cast(pl.Binary)),
                    pl.DataFrame({"user_id": [b"\xff\xfe"], "item_id": ["1"], "timestamp": [START]}),
                ]
            )
        ),
        reasons={"user_not_utf8": 1},
    ),
    Case(
        name="empty and blank string ids",
        make=parquet(lambda: frame([*AS_TEXT, ("", "1", START), ("1", " \t", START)])),
        reasons={"null_item": 1, "null_user": 1},
    ),
    Case(
        name="words for nothing as string ids",
        make=parquet(lambda: frame([*AS_TEXT, ("NULL", "1", START), ("1", "\\N", START), ("NaN", "1", START)])),
        reasons={"null_item": 1, "null_user": 2},
    ),
    Case(
        name="a user who is called Null",
        make=parquet(lambda: frame([*AS_TEXT, ("Null", "1", START), ("NULL", "1", START)])),
        events=[*TEXT_USERS, ("Null", 1, START), ("NULL", 1, START)],
        source={"missing": []},
        rule="only the words of `data.source.missing` stand for no id",
    ),
    Case(
        name="blanks around Parquet's string ids",
        make=parquet(lambda: frame([*AS_TEXT, (" 1", "1", START)])),
        events=[*CLEAN, (1, 1, START)],
        rule="they are no part of an id in any format",
    ),
    Case(
        name="one id written in many ways",
        make=content(csv_text([*CLEAN, *((f'"{way}"', 1, START) for way in MANY_WAYS)]), "log.csv"),
        events=[*CLEAN, *((1600, 1, START) for way in MANY_WAYS)],
        rule="a whole number is one id whatever its spelling",
    ),
    Case(
        name="UUIDs in capitals and small letters",
        make=content(csv_text([(UUID.upper(), 1, START), (UUID, 2, START)]), "log.csv"),
        events=[(UUID, 1, START), (UUID, 2, START)],
        rule="one id: their letters have no case",
    ),
    Case(
        name="hashes that look like numbers with exponents",
        make=content(csv_text([*CLEAN, ("12e4", 1, START), ("120000", 1, START)]), "log.csv"),
        events=[*TEXT_USERS, ("12e4", 1, START), ("120000", 1, START)],
        rule="text: programs write one digit before the point, as in 1.2e5",
    ),
    Case(
        name="ids of all scripts, with NUL and quotes",
        make=parquet(lambda: frame([("ü\U0001f600", "a\0b", START), ('"', "\u202e", START)])),
        events=[("ü\U0001f600", "a\0b", START), ('"', "\u202e", START)],
        rule="any UTF-8 is an id",
    ),
    Case(
        name="id of more than 1,024 bytes",
        make=parquet(lambda: frame([*LETTERS, (LONG, "1", START), ("1", LONG, START)])),
        events=[*LETTERS],
        reasons={"item_too_long": 1, "user_too_long": 1},
    ),
    Case(
        name="leading zeros in CSV",
        make=content(csv_text([*CLEAN, ("007", 1, START)]), "log.csv"),
        events=[*((str(u), i, t) for u, i, t in CLEAN), ("007", 1, START)],
        rule="one id that is not plain makes the column one of strings: 007 is not 7",
    ),
    Case(
        name="integer wider than int64 in CSV",
        make=content(csv_text([*CLEAN, (10**20, 1, START)]), "log.csv"),
        events=[*((str(u), i, t) for u, i, t in CLEAN), (str(10**20), 1, START)],
        rule="text has no range: the column is one of strings",
    ),
    Case(
        name="a column of nulls alone",
        make=parquet(lambda: users_as(None)),
        options={"max_bad_fraction": 0.01},
        says=("20 of 20 rows are broken", "null_user 20", "data.max_bad_fraction=0.01"),
    ),
    Case(
        name="more broken rows than data.max_bad_fraction",
        make=with_rows(*TOO_MANY),
        options={"max_bad_fraction": 0.4},
        says=("20 of 40 rows are broken", "null_user 20", "0.5", "data.max_bad_fraction=0.4"),
    ),
    Case(
        name="equal rows",
        make=with_rows(*CLEAN[:3]),
        events=[*CLEAN, *CLEAN[:3]],
        rule="a repeat is an event, unless `data.deduplicate` is set",
    ),
    Case(
        name="equal rows with data.deduplicate",
        make=with_rows(*CLEAN[:3]),
        filtered={"duplicate": 3},
        options={"deduplicate": True},
        rule="the first of them stays, the others are counted as filtered",
    ),
    Case(
        name="null event type",
        make=parquet(lambda: frame().with_columns(pl.lit(None, pl.String).alias("kind"))),
        columns={"event_type": "kind"},
        rule="an event of no type, which `data.event_types` filters out",
    ),
]

TIMES = [
    Case(name="time is null", make=with_rows((1, 1, None)), reasons={"null_timestamp": 1}),
    Case(
        name="time is NaN or infinite",
        make=with_rows((1, 1, float("nan")), (1, 1, float("inf")), (1, 1, -float("inf")), timestamp=pl.Float64()),
        reasons={"non_integer_timestamp": 3},
    ),
    Case(
        name="whole float times", make=parquet(lambda: frame(timestamp=pl.Float64())), rule="1600000000000.0 is whole"
    ),
    Case(
        name="a fraction of a millisecond",
        make=with_rows((1, 1, START + 0.5), timestamp=pl.Float64()),
        reasons={"non_integer_timestamp": 1},
    ),
    Case(name="decimal times", make=parquet(lambda: frame(timestamp=pl.Decimal(20, 3))), rule="where they are whole"),
    Case(name="time before 1970", make=with_rows((1, 1, -5)), reasons={"negative_timestamp": 1}),
    Case(
        name="time beyond int64",
        make=with_rows((1, 1, 2**64 - 1), timestamp=pl.UInt64()),
        reasons={"non_integer_timestamp": 1},
    ),
    Case(
        name="time in the far future (or microseconds read as milliseconds)",
        make=with_rows((1, 1, START * 1000), (1, 1, LARGEST)),
        reasons={"timestamp_too_late": 2},
    ),
    Case(
        name="seconds among milliseconds",
        make=with_rows((1, 1, START // 1000)),
        source={"earliest_time": "2000-01-01"},
        reasons={"timestamp_too_early": 1},
    ),
    Case(
        name="one file in milliseconds, one in microseconds",
        make=files({"a.parquet": frame, "b.parquet": lambda: times_in(10**6)}),
        reasons={"timestamp_too_late": 20},
    ),
    Case(
        name="seconds",
        make=parquet(lambda: times_in(1)),
        source={"time_unit": "s"},
        rule="multiplied",
    ),
    Case(
        name="seconds with a fraction",
        make=parquet(lambda: frame([(u, i, t / 1000) for u, i, t in CLEAN])),  # type: ignore[operator]
        source={"time_unit": "s"},
        rule="to the millisecond",
    ),
    Case(
        name="seconds beyond what milliseconds can count",
        make=parquet(lambda: pl.concat([times_in(1), frame([(1, 1, LARGEST)])])),
        source={"time_unit": "s"},
        reasons={"timestamp_too_late": 1},
    ),
    Case(
        name="microseconds",
        make=parquet(lambda: times_in(10**6).with_columns(pl.col("timestamp") + 999)),
        source={"time_unit": "us"},
        rule="rounded down",
    ),
    Case(name="nanoseconds", make=parquet(lambda: times_in(10**9)), source={"time_unit": "ns"}, rule="rounded down"),
    *(
        Case(
            name=f"datetimes in {unit}, {zone or 'no zone'}",
            make=parquet(
                lambda unit=unit, zone=zone: frame().with_columns(  # type: ignore[misc]
                    pl.col("timestamp").cast(pl.Datetime("ms", "UTC")).cast(pl.Datetime(unit, zone))
                )
            ),
            rule="the moment counts; without a zone it is UTC",
        )
        for unit, zone in (("ms", None), ("us", "Europe/Berlin"), ("ns", "UTC"))
    ),
    Case(
        name="dates",
        make=parquet(lambda: frame().with_columns(pl.col("timestamp").cast(pl.Datetime("ms")).cast(pl.Date))),
        events=MIDNIGHTS,
        rule="midnight UTC",
    ),
    *(
        Case(name=f"times as text: {example}", make=parquet(lambda rows=rows: frame(rows)), rule=rule)  # type: ignore[misc]
        for example, rows, rule in (
            ("2020-09-13T12:26:40Z", timed("%Y-%m-%dT%H:%M:%SZ"), "ISO 8601"),
            ("2020-09-13 12:26:40.000", timed("%Y-%m-%d %H:%M:%S.000"), "UTC where no zone is given"),
            ("2020-09-13T17:56:40+0530", timed("%Y-%m-%dT%H:%M:%S%z", timezone(timedelta(hours=5.5))), "with a zone"),
            ("1600000000000", [(u, i, f" {t} ") for u, i, t in CLEAN], "numbers, in `data.source.time_unit`"),
        )
    ),
    Case(
        name="dates as text",
        make=content(csv_text(timed("%Y-%m-%d")), "log.csv"),
        events=MIDNIGHTS,
        rule="midnight UTC",
    ),
    Case(
        name="text that is no time",
        make=parquet(lambda: frame([*timed("%Y-%m-%dT%H:%M:%SZ"), (1, 1, "monday"), (1, 1, "2020-02-31")])),
        reasons={"non_integer_timestamp": 2},
    ),
    Case(
        name="times as text in one file and as numbers in another",
        make=files(
            {"a.parquet": lambda: frame(CLEAN[:8]), "b.parquet": lambda: frame(timed("%Y-%m-%dT%H:%M:%SZ")[8:])}
        ),
        rule="each file is read by its own type",
    ),
    Case(
        name="times of day",
        make=parquet(lambda: frame().with_columns(pl.col("timestamp").cast(pl.Datetime("ms")).dt.time())),
        says=("log.parquet", "'timestamp'", "Time"),
    ),
    Case(
        name="durations",
        make=parquet(lambda: frame().with_columns(pl.col("timestamp").cast(pl.Duration("ms")))),
        says=("log.parquet", "'timestamp'", "Duration"),
    ),
]
