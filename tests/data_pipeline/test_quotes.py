"""No row of delimited text is lost without a word: it is read as Python's csv reads it, or the file is refused."""

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from configs.load import load_config
from configs.schema.source import SourceConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.read import formats, text_blocks
from data_pipeline.prepare.read.dialect import Wanted, delimited_dialect
from data_pipeline.prepare.read.quarantine import check_all_read
from data_pipeline.prepare.read.sources import open_log
from data_pipeline.store.manifest import Manifest

NAMES = ["user_id", "item_id", "timestamp", "title"]
HARD = st.text(st.sampled_from("ab ,;\"'\\\n\r\té漢"), max_size=12)
ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(10**12, 2 * 10**12), HARD), min_size=1)
SMALL_BLOCKS = st.sampled_from([1, 7, 64, 1 << 20])


def written(rows: list[tuple[object, ...]], **form: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, **{"lineterminator": "\n"} | form).writerows([NAMES, *rows])  # type: ignore[arg-type]
    return text.getvalue().encode()


def titles_in(log: Path, **source: object) -> list[str | None]:
    file = formats.scan_file(
        log, dict(zip(("user", "item", "timestamp"), NAMES, strict=False)), SourceConfig(**source)
    )  # type: ignore[arg-type]
    titles: list[str | None] = file.rows.collect()["title"].to_list()
    assert file.num_records == len(titles)
    return titles


def same_lines(text: str) -> str:
    """A quoted line end may be read as any of the three."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, SMALL_BLOCKS, st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_writes_is_read_row_by_row(
    tmp_path: Path, rows: list[tuple[object, ...]], block_bytes: int, line_end: str
) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(written(rows, quoting=csv.QUOTE_ALL, lineterminator=line_end))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
        assert [same_lines(title or "") for title in titles_in(log, escape="")] == [
            same_lines(row[3]) for row in rows
        ]  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, SMALL_BLOCKS)
def test_what_is_written_with_backslashes_is_read_row_by_row(
    tmp_path: Path, rows: list[tuple[object, ...]], block_bytes: int
) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(written(rows, quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
        found = titles_in(log, escape="\\")
    assert [same_lines(title or "") for title in found] == [same_lines(row[3]) for row in rows]  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ROWS,
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(['"', '\\"', "\\", "\n", "\r"])), max_size=4),
    SMALL_BLOCKS,
)
def test_damaged_quotes_never_make_fewer_rows_than_whole_lines_have(
    tmp_path: Path, rows: list[tuple[object, ...]], damage: list[tuple[int, str]], block_bytes: int
) -> None:
    """Rows whose title is plain, between marks that are put anywhere behind the header, which no log lacks: each is
    read, or the file is refused."""
    header, end, data = written([(*row[:3], "plain") for row in rows]).decode().partition("\n")
    for place, mark in damage:
        data = data[: place % (len(data) + 1)] + mark + data[place % (len(data) + 1) :]
    log = tmp_path / "log.csv"
    log.write_bytes(f"{header}{end}{data}".encode())
    untouched = sum(
        line.endswith(",plain") and line.count(",") == 3 and '"' not in line for line in data.splitlines()
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
        try:
            file = formats.scan_file(log, {"timestamp": "timestamp"}, SourceConfig())
        except DataError:
            return
        assert len(file.rows.collect()) >= max(untouched, file.num_records)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: pa.Codec("zstd").compress(data, asbytes=True)])
@pytest.mark.parametrize("block_bytes", [5, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"])
def test_blocks_are_the_file(
    encoding: str, block_bytes: int, pack: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_blocks, "BLOCK_BYTES", block_bytes)
    text = "é,ü\r\nlast\rline\n\nwithout end"
    (tmp_path / "log").write_bytes(pack(text.encode(encoding)))  # type: ignore[operator]
    found = text_blocks.encoding_of(tmp_path / "log", "latin-1" if encoding == "latin-1" else "auto")
    assert b"".join(text_blocks.blocks_of(tmp_path / "log", found)).decode() == text
    mended = b"".join(text_blocks.blocks_of(tmp_path / "log", found, mends_returns=True)).decode()
    assert mended == text.replace("last\rline", "last\nline")


def test_a_reader_that_gives_fewer_rows_than_the_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(written([(1, 2, 3, "a"), (1, 2, 3, "b")]))
    config = load_config([f"data.log={tmp_path}"]).data
    [file] = open_log([tmp_path / "log.csv"], config.columns, config.source)
    check_all_read(file, 2)
    with pytest.raises(DataError, match=r"log\.csv has 2 rows by its line ends and quotes, of which 1 could be read"):
        check_all_read(file, 1)


def test_two_ways_to_read_that_differ_in_rows_are_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text('a,b\n"\\","\n"\\"\n')
    wanted = Wanted(separator=",", quote='"', escape="auto")
    with pytest.raises(DataError, match=r"data\.source\.(escape|quote)"):
        delimited_dialect(log, "auto", wanted)


@pytest.mark.parametrize("parts", [[21], [7, 7, 7], [1, 20]])
def test_a_log_without_times_is_numbered_over_files_and_appends(parts: list[int], tmp_path: Path) -> None:
    rows = [(k % 3, k % 7) for k in range(21)]
    keys = ["data.columns.timestamp=", "data.source.separator=whitespace", "data.source.header=[user_id,item_id]"]

    def store(name: str, log: Path, *more: str) -> Manifest:
        return prepare(load_config([f"data.log={log}", f"data.store={tmp_path / name}", *keys, *more]).data)

    (tmp_path / "all.csv").write_text("".join(f"{u} {i}\n" for u, i in rows))
    whole = store("whole", tmp_path / "all.csv")
    assert not whole.has_times
    log, first = tmp_path / "log", 0
    log.mkdir()
    for number, length in enumerate(parts):
        part = log / f"{number}.csv"
        part.write_text("".join(f"{u} {i}\n" for u, i in rows[first : first + length]))
        appended = store("appended", part, "data.append=true")
        first += length
    assert store("files", log).fingerprint == appended.fingerprint == whole.fingerprint
    times = pl.read_parquet(tmp_path / "whole/histories/*.parquet").explode("timestamp")["timestamp"].sort()
    assert times.to_list() == list(range(21))


def test_what_needs_times_is_refused_without_them(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("1 2 3 4\n")
    keys = [f"data.log={tmp_path}/log.txt", f"data.store={tmp_path}/store", "data.source.layout=history_lines"]
    for more, told in (
        ("data.deduplicate=true", r"data\.deduplicate=true: data\.columns\.timestamp is empty"),
        ("data.split=global_time", r"data\.split=global_time: data\.columns\.timestamp is empty"),
        ("data.columns.event_type=kind", r"data\.columns\.event_type=kind: .*history_lines"),
    ):
        with pytest.raises(ValueError, match=told):
            load_config([*keys, more])
