"""Broken Parquet files, and files whose columns do not fit one another."""

import io
from pathlib import Path
from uuid import UUID

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dirty.case import AS_TEXT, CLEAN, TEXT_USERS, Case, content, csv_text, files, frame, parquet


def parquet_bytes(table: pl.DataFrame | None = None, **options: object) -> bytes:
    """``table`` (the clean events) as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table((frame() if table is None else table).to_arrow(), buffer, **options)
    return buffer.getvalue()


def damaged(folder: Path) -> str:
    """A file of four row groups, in which the page of the items of the third is overwritten."""
    path = folder / "log.parquet"
    data = bytearray(parquet_bytes(row_group_size=5, compression="zstd"))
    path.write_bytes(data)
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(1)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(data)
    return str(path)


def flipped(folder: Path) -> str:
    """A file with checksums, in which one bit of the last time is another."""
    data = bytearray(parquet_bytes(compression="none", use_dictionary=False, write_page_checksum=True))
    place = bytes(data).rindex(int(frame()["timestamp"][-1]).to_bytes(8, "little"), 0, -600)
    data[place] ^= 1
    (folder / "log.parquet").write_bytes(data)
    return str(folder / "log.parquet")


def uuid_of(number: object) -> UUID:
    """A UUID that stands for ``number``."""
    assert isinstance(number, int), "clean users are whole"
    return UUID(int=number * 0xC232AB00941411ECB3C89F6BDECED846 % 2**128)


def uuids(folder: Path) -> str:
    """Users as UUIDs of Arrow's type in one file, as text in capitals in another."""
    users = [uuid_of(user) for user, _, _ in CLEAN]
    table = frame().to_arrow()
    typed = pa.array([user.bytes for user in users], pa.uuid())
    pq.write_table(table.set_column(0, "user_id", typed), folder / "a.parquet")
    pq.write_table(
        table.set_column(0, "user_id", pa.array([str(user).upper() for user in users])), folder / "b.parquet"
    )
    return str(folder)


def strings_that_are_none(folder: Path) -> str:
    """A string column in which Arrow was made to write a byte that is no UTF-8."""
    table = frame([*AS_TEXT, ("bad", "1", 5)]).to_arrow()
    users = [*(user.encode() for user in table.column("user_id").to_pylist()[:-1]), b"b\xffd"]
    offsets, data = pa.array(users, pa.binary()).buffers()[1:]
    broken = pa.Array.from_buffers(pa.string(), len(users), [None, offsets, data])
    pq.write_table(table.set_column(0, "user_id", broken), folder / "log.parquet")
    return str(folder / "log.parquet")


def two_columns_of_one_name(folder: Path) -> str:
    """A table in which ``user_id`` comes twice."""
    table = frame().to_arrow()
    pq.write_table(table.append_column("user_id", table.column("user_id")), folder / "log.parquet")
    return str(folder / "log.parquet")


WHOLE = parquet_bytes()
EXTRA = {
    "a.parquet": lambda: frame(CLEAN[:9]),
    "b.parquet": lambda: frame(CLEAN[9:]).with_columns(pl.lit(1.5).alias("x")),
}

COLUMNS = [
    Case(
        name="a column is missing in one file",
        make=files({"a.parquet": frame, "b.parquet": lambda: frame().drop("item_id")}),
        says=("b.parquet", "no column 'item_id' (data.columns.item)", "user_id, timestamp"),
    ),
    Case(
        name="a column of another case",
        make=parquet(lambda: frame().rename({"user_id": "USER_ID"})),
        says=("log.parquet", "no column 'user_id' (data.columns.user)", "USER_ID"),
    ),
    Case(
        name="no columns",
        make=content(parquet_bytes(pl.DataFrame()), "log.parquet"),
        says=("holds no rows",),
    ),
    Case(name="further columns in one file", make=files(EXTRA), rule="columns that are not asked for are not read"),
    Case(
        name="columns in another order in each file",
        make=files(
            {
                "a.parquet": lambda: frame(CLEAN[:9]),
                "b.parquet": lambda: frame(CLEAN[9:]).select("timestamp", "user_id", "item_id"),
            }
        ),
        rule="columns go by their names",
    ),
    Case(
        name="two columns of one name",
        make=two_columns_of_one_name,
        says=("log.parquet", "column appears more than once", "user_id"),
    ),
    Case(
        name="ids of int32 in one file and int64 in another",
        make=files({"a.parquet": lambda: frame(CLEAN[:9], user=pl.Int32()), "b.parquet": lambda: frame(CLEAN[9:])}),
        rule="one kind of id",
    ),
    Case(
        name="ids of integers in one file and strings in another",
        make=files({"a.parquet": frame, "b.parquet": lambda: frame(AS_TEXT)}),
        events=[*CLEAN, *CLEAN],
        rule="the value counts, not the type: all are whole numbers",
    ),
    Case(
        name="CSV with integers beside Parquet with strings",
        make=files({"a.csv": csv_text(CLEAN[:9]), "b.parquet": lambda: frame(AS_TEXT[9:])}),
        rule="as above",
    ),
    Case(
        name="CSV with words beside Parquet with integers",
        make=files({"a.csv": csv_text([("ann", 1, 5)]), "b.parquet": frame}),
        events=[("ann", 1, 5), *TEXT_USERS],
        rule="one word in one file makes the column one of text in all",
    ),
    Case(
        name="floats beside integers and texts of them",
        make=files(
            {
                "a.parquet": lambda: frame(CLEAN[:5], user=pl.Float64()),
                "b.parquet": lambda: frame(CLEAN[5:9]),
                "c.csv": csv_text([(f"{u}.0", i, t) for u, i, t in CLEAN[9:]]),
            }
        ),
        rule="7, 7.0 and the text of either are one id",
    ),
    Case(
        name="UUIDs by their bytes beside their text",
        make=uuids,
        events=[(str(uuid_of(u)), i, t) for u, i, t in [*CLEAN, *CLEAN]],
        rule="one id",
    ),
    Case(
        name="a file without rows whose columns have no type or another one",
        make=files({"a.parquet": lambda: frame([], user=pl.Null(), item=pl.Boolean()), "b.parquet": frame}),
        rule="it is left out, and the command says so",
    ),
    Case(
        name="a file without rows or columns of the log",
        make=files({"a.parquet": lambda: pl.DataFrame({"x": []}), "b.parquet": frame, "c.parquet": b""}),
        rule="left out as well; so is a file of no bytes",
    ),
    Case(
        name="a column of nulls in one file",
        make=files({"a.parquet": frame, "b.parquet": lambda: frame([(None, 1, 5)])}),
        reasons={"null_user": 1},
    ),
    Case(
        name="a column of the log named like one of the quarantine's",
        make=parquet(
            lambda: pl.concat([frame(), frame([(None, 1, 5)], user=pl.Int64())]).with_columns(
                pl.lit("mine").alias("reason"), pl.lit(0).alias("log_row")
            )
        ),
        reasons={"null_user": 1},
    ),
]

PARQUET = [
    Case(
        name="a file without row groups beside others",
        make=files({"a.parquet": frame, "b.parquet": lambda: frame([])}),
        rule="no rows, no events",
    ),
    Case(
        name="a log without rows",
        make=parquet(lambda: frame([], user=pl.Int64(), item=pl.Int64(), timestamp=pl.Int64())),
        says=("holds no rows",),
    ),
    Case(name="zero bytes", make=content(b"", "log.parquet"), says=("holds no rows",)),
    Case(
        name="cut in half",
        make=content(WHOLE[: len(WHOLE) // 2], "log.parquet"),
        says=("log.parquet cannot be read",),
    ),
    Case(name="the last byte cut off", make=content(WHOLE[:-1], "log.parquet"), says=("log.parquet cannot be read",)),
    Case(
        name="CSV by the name of Parquet",
        make=content(csv_text(), "log.parquet"),
        says=("log.parquet cannot be read",),
    ),
    Case(name="Parquet by the name of CSV", make=content(WHOLE, "log.csv"), says=("log.csv is a Parquet file",)),
    Case(
        name="encrypted",
        make=content(b"PARE" + WHOLE[4:-4] + b"PARE", "log.parquet"),
        says=("log.parquet cannot be read",),
    ),
    Case(
        name="a damaged page",
        make=damaged,
        says=("log.parquet cannot be read", "row group 2, column 'item_id'"),
    ),
    Case(
        name="strings that are no UTF-8",
        make=strings_that_are_none,
        reasons={"user_not_utf8": 1},
    ),
    Case(
        name="a flipped bit in a page with a checksum, as Spark writes",
        make=flipped,
        says=("log.parquet cannot be read", "row group 0, column 'timestamp'"),
    ),
    *(
        Case(
            name=f"compressed with {codec}",
            make=content(parquet_bytes(compression=codec), "log.parquet"),
            rule="every codec of Parquet but LZO",
        )
        for codec in ("none", "snappy", "gzip", "brotli", "lz4", "zstd")
    ),
    Case(
        name="pages of version 2 with delta encodings",
        make=content(
            parquet_bytes(data_page_version="2.0", use_dictionary=False, column_encoding="DELTA_BINARY_PACKED"),
            "log.parquet",
        ),
        rule="read",
    ),
    Case(
        name="datetimes of the old INT96",
        make=content(
            parquet_bytes(
                frame().with_columns(pl.col("timestamp").cast(pl.Datetime("ms")).cast(pl.Datetime("ns"))),
                use_deprecated_int96_timestamps=True,
            ),
            "log.parquet",
        ),
        rule="read",
    ),
]
