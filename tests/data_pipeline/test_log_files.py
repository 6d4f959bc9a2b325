"""No file of a log is left out without a word: it is read by its content, or counted, named, and bounded."""

import bz2
import gzip
import lzma
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from configs.errors import ConfigError, DataError
from configs.schema import ColumnsConfig, DataConfig
from configs.schema.source import Layout, SourceConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.log_files import find_log, find_log_files
from data_pipeline.store.manifest import Manifest, load_manifest
from data_pipeline.store.paths import ObjectPath
from object_store import BUCKET, FaultyProxy

START = 1_600_000_000_000
HALVES = [pl.DataFrame({"user_id": [k, k], "item_id": [1, 2], "timestamp": [START, START + 1]}) for k in (1, 2)]


def parquet_bytes(rows: pl.DataFrame) -> bytes:
    sink = pa.BufferOutputStream()
    rows.write_parquet(sink)
    return bytes(sink.getvalue())


def csv_bytes(rows: pl.DataFrame, separator: str = ",") -> bytes:
    return rows.write_csv(separator=separator).encode()


def packed(data: bytes, codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def folder_with(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "log"


def prepared(folder: Path, log: Path | str, **source: object) -> tuple[Manifest, str]:
    lines: list[str] = []
    config = DataConfig(log=str(log), store=str(folder / "store"), source=SourceConfig(**source))  # type: ignore[arg-type]
    return prepare(config, ProgressReporter(lines.append)), "\n".join(lines)


RECOGNISED = {
    "rotated JSON lines": ("a.jsonl", "a.jsonl.1", lambda rows: rows.write_ndjson().encode()),
    "rotated and packed JSON lines": ("a.jsonl", "a.jsonl.2.gz", lambda rows: rows.write_ndjson().encode()),
    "rotated CSV": ("a.csv", "a.csv.1", csv_bytes),
    "Unicode text of a spreadsheet": ("a.tsv", "a.txt", lambda rows: csv_bytes(rows, "\t").decode().encode("utf-16")),
    "text": ("a.csv", "b.txt", csv_bytes),
    "tabs": ("a.tsv", "b.txt", lambda rows: csv_bytes(rows, "\t")),
    "no ending": ("a.csv", "part_0", csv_bytes),
    "JSON": ("a.jsonl", "b.json", lambda rows: rows.write_ndjson().encode()),
    "pq": ("a.parquet", "b.pq", parquet_bytes),
    "parq": ("a.parquet", "b.parq", parquet_bytes),
    "Parquet without an ending": ("a.parquet", "part-00001-c000", parquet_bytes),
    "Parquet by another name": ("a.parquet", "b.snappy", parquet_bytes),
    "capitals": ("a.PARQUET", "b.Parquet", parquet_bytes),
}
PACKED = {
    "bz2": ("b.csv.bz2", bz2.compress),
    "xz": ("b.csv.xz", lzma.compress),
    "lz4": ("b.csv.lz4", lambda data: packed(data, "lz4")),
    "gzip by another name": ("b.log", gzip.compress),
    "zstd by another name": ("b.zstd", lambda data: packed(data, "zstd")),
}


@pytest.mark.parametrize("case", RECOGNISED)
def test_a_file_whose_content_is_the_logs_is_read_whatever_its_name(case: str, tmp_path: Path) -> None:
    first, second, written = RECOGNISED[case]
    data = written(HALVES[1])
    data = gzip.compress(data) if second.endswith(".gz") else data
    log = folder_with(tmp_path, {first: written(HALVES[0]), second: data})
    manifest, _ = prepared(tmp_path, log)
    assert (manifest.num_events, manifest.files_skipped) == (4, [])


@pytest.mark.parametrize("case", PACKED)
@pytest.mark.parametrize("is_named", [False, True])
def test_a_packed_file_is_unpacked(case: str, is_named: bool, tmp_path: Path) -> None:
    name, pack = PACKED[case]
    log = folder_with(tmp_path, {"a.csv": csv_bytes(HALVES[0]), name: pack(csv_bytes(HALVES[1]))})
    manifest, said = prepared(tmp_path, log / name if is_named else log)
    assert manifest.num_events == (2 if is_named else 4)
    assert f"unpacking {log / name}" in said
    assert [path.name for path in tmp_path.iterdir()] == ["log", "store"] or {"log", "store"} == {
        path.name for path in tmp_path.iterdir()
    }


def test_broken_rows_of_an_unpacked_file_name_the_packed_one(tmp_path: Path) -> None:
    rows = csv_bytes(pl.concat([HALVES[0]] * 100)) + b"x,y,z\n"
    log = folder_with(tmp_path, {"a.csv.bz2": bz2.compress(rows)})
    prepared(tmp_path, log)
    kept = pl.read_parquet(tmp_path / "store" / "quarantine" / "*.parquet")
    assert kept["log_file"].to_list() == [str(log / "a.csv.bz2")]


@pytest.mark.parametrize("name", ["b.csv.bz2", "b.csv.xz", "b.csv.lz4"])
def test_a_packed_file_that_is_cut_off_is_named(name: str, tmp_path: Path) -> None:
    pack = dict(PACKED.values())[name]
    whole = pack(csv_bytes(pl.concat([HALVES[0].with_columns(item_id=k) for k in range(20_000)])))
    log = folder_with(tmp_path, {name: whole[: len(whole) * 3 // 4]})
    with pytest.raises(DataError, match=f"{name} .*fix the file, or move it out of data.log"):
        prepared(tmp_path, log)


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    files = {"a.csv": csv_bytes(pl.concat(HALVES * 500)), "b.dat": b"nothing that is known\n", "deep/c": b"1"}
    log = folder_with(tmp_path, files)
    manifest, said = prepared(tmp_path, log)
    assert manifest.files_skipped == load_manifest(str(tmp_path / "store")).files_skipped
    assert sorted(manifest.files_skipped) == [str(log / "b.dat"), str(log / "deep" / "c")]
    assert "2 files of 23 bytes" in said
    assert str(log / "b.dat") in said


def test_a_share_above_the_bound_is_refused_by_key(tmp_path: Path) -> None:
    log = folder_with(tmp_path, {"a.csv": csv_bytes(HALVES[0]), "b.dat": b"?" * 1000})
    with pytest.raises(DataError, match=r"data.source.max_skipped_fraction=0.05") as refused:
        prepared(tmp_path, log)
    assert str(log / "b.dat") in str(refused.value)
    assert prepared(tmp_path, log, max_skipped_fraction=1.0)[0].num_events == 2
    with pytest.raises(ConfigError, match="max_skipped_fraction=2"):
        SourceConfig(max_skipped_fraction=2)


def test_texts_that_are_the_log_are_read_by_the_keys_that_the_refusal_names(tmp_path: Path) -> None:
    log = folder_with(tmp_path, {"000000_0": csv_bytes(HALVES[0], "\x01")})
    with pytest.raises(DataError, match=r"set data\.source\.layout and data\.source\.separator as they are written"):
        prepared(tmp_path, log)
    assert prepared(tmp_path, log, layout=Layout.DELIMITED, separator="\x01")[0].num_events == 2


def test_a_file_that_was_packed_twice_is_named(tmp_path: Path) -> None:
    log = folder_with(tmp_path, {"a.csv.gz": gzip.compress(gzip.compress(csv_bytes(HALVES[0])))})
    with pytest.raises(DataError, match=r"a\.csv\.gz is compressed twice; unpack it once"):
        prepared(tmp_path, log)


def test_a_file_counts_once_whatever_its_names_and_copies_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = folder_with(tmp_path, {"a.csv": csv_bytes(HALVES[0]), "b.csv": csv_bytes(HALVES[1])})
    (log / "c.csv").symlink_to("a.csv")
    (log / "d.csv").hardlink_to(log / "b.csv")
    (log / "e.csv").write_bytes(csv_bytes(HALVES[1]))
    found = find_log(str(log))
    assert found.paths == [log / "a.csv", log / "b.csv", log / "e.csv"]
    assert f"{log}/c.csv is {log}/a.csv" in found.lines()[0]
    config = DataConfig(log=str(log), store=str(tmp_path / "store"))
    manifest = prepare(config, progress=ProgressReporter(print))
    assert manifest.num_events == 6
    assert f"their events count twice: {log}/e.csv and {log}/b.csv" in capsys.readouterr().out


def test_partitions_of_the_same_rows_are_no_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pl.DataFrame({"item_id": [1, 2], "timestamp": [10, 20]})
    for user in ("7", "8"):
        (tmp_path / "log" / f"user_id={user}").mkdir(parents=True)
        rows.write_parquet(tmp_path / "log" / f"user_id={user}" / "a.parquet")
    manifest = prepare(
        DataConfig(log=str(tmp_path / "log"), store=str(tmp_path / "store")), progress=ProgressReporter(print)
    )
    assert (manifest.num_users, manifest.num_events) == (2, 4)
    assert "count twice" not in capsys.readouterr().out


def test_marks_and_papers_beside_a_log_are_no_loss(tmp_path: Path) -> None:
    names = ("_SUCCESS", ".a.csv.crc", ".DS_Store", "_committed_1", "README", "README.md", "LICENSE.txt", "a.csv.md5")
    names += ("empty", "_temporary/0/b.csv", ".hidden/c.csv", "run.sh")
    log = folder_with(tmp_path, {"a.csv": csv_bytes(HALVES[0])} | dict.fromkeys(names, b"x" * 999))
    (log / "empty").write_bytes(b"")
    manifest, said = prepared(tmp_path, log)
    assert (manifest.num_events, manifest.files_skipped) == (2, [])
    assert "left out" not in said


@pytest.mark.parametrize(
    ("name", "data"),
    [("b", b"Obj\x01avro"), ("b.txt", b"ORC"), ("c", b"ARROW1"), ("d", b"PK\x03\x04"), ("e.avro", b"?")],
)
def test_data_of_a_format_that_is_not_read_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    log = folder_with(tmp_path, {"a.csv": csv_bytes(HALVES[0]), name: data})
    with pytest.raises(DataError, match=f"{log / name} is of a format that is not read"):
        find_log(str(log))


def test_other_tables_beside_a_log_are_not_taken_for_it(tmp_path: Path) -> None:
    items = b"item_id,title\n" + b"1,a\n" * 3
    log = folder_with(tmp_path, {"a.csv": csv_bytes(pl.concat(HALVES * 500)), "items": items, "schema.json": b"{}"})
    assert find_log_files(str(log)) == [log / "a.csv"]
    assert sorted(find_log(str(log)).skipped) == [str(log / "items"), str(log / "schema.json")]


def test_a_glob_reads_what_it_names_and_passes_over_marks(tmp_path: Path) -> None:
    log = folder_with(tmp_path, {"a.jsonl.1": HALVES[0].write_ndjson().encode(), "_SUCCESS": b"", "README": b"x"})
    assert find_log_files(f"{log}/*") == [log / "a.jsonl.1"]
    with pytest.raises(DataError, match=r"unknown format.*'user_id' 'item_id' 'timestamp'"):
        find_log_files(f"{folder_with(tmp_path, {'other.dat': b'1 2 3'})}/*.dat")


def test_a_layout_that_is_set_takes_the_files_of_a_folder_that_have_it(tmp_path: Path) -> None:
    rows = b"".join(b"%d::%d::5::%d\n" % (u, i, START // 1000) for u in (1, 2) for i in (1, 2)) * 50
    log = folder_with(tmp_path, {"ratings.dat": rows, "movies.dat": b"1::Heat\n", "README": b"x"})
    source = SourceConfig(
        layout=Layout.DELIMITED, separator="::", header=["user_id", "item_id", "rating", "timestamp"]
    )
    found = find_log(str(log), source)
    assert (found.paths, list(found.skipped)) == ([log / "ratings.dat"], [str(log / "movies.dat")])


def test_partition_folders_are_columns(tmp_path: Path) -> None:
    rows = pl.concat(HALVES).drop("timestamp")
    for kind, write in (
        ("parquet", parquet_bytes),
        ("csv", csv_bytes),
        ("jsonl", lambda r: r.write_ndjson().encode()),
    ):
        files = {
            f"dt=2024-01-0{day}/kind=a%20b/x.{kind}": write(rows.with_columns(item_id=pl.lit(day))) for day in (3, 1)
        }
        log = folder_with(tmp_path / kind, files)
        config = DataConfig(
            log=str(log),
            store=str(tmp_path / kind / "store"),
            columns=ColumnsConfig(timestamp="dt", event_type="kind"),
            event_types=["a b"],
        )
        manifest = prepare(config)
        assert manifest.num_events == 8
        assert manifest.first_time_ms == 1_704_067_200_000
        assert manifest.last_time_ms == manifest.first_time_ms + 2 * 86_400_000


def test_a_column_of_the_file_stands_before_one_of_the_folder(tmp_path: Path) -> None:
    log = folder_with(tmp_path, {"timestamp=1/a.parquet": parquet_bytes(HALVES[0])})
    assert prepared(tmp_path, log)[0].first_time_ms == START


def test_the_rules_hold_in_a_bucket(tmp_path: Path, proxy: FaultyProxy) -> None:
    files = {
        "a.csv": csv_bytes(pl.concat(HALVES * 500)),
        "dt=1/b.pq": parquet_bytes(HALVES[0]),
        "c.csv.bz2": bz2.compress(csv_bytes(HALVES[1])),
        "d": b"?",
        "_SUCCESS": b"",
        "README.md": b"x",
    }
    for name, data in files.items():
        ObjectPath(f"s3://{BUCKET}/names/{name}").write_bytes(data)
    manifest, said = prepared(tmp_path, f"s3://{BUCKET}/names")
    assert manifest.num_events == 2004
    assert manifest.files_skipped == [f"s3://{BUCKET}/names/d"]
    assert f"s3://{BUCKET}/names/d" in said
