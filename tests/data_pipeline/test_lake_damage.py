"""Damage in a table of a lake is named by its file, in our words; what is deleted by any means never counts."""

import json
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from lake import arrow, events, events_in, iceberg_table, prepared, spark_sink, with_deletes, z85
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record

from configs.errors import DataError
from data_pipeline.prepare.read.log_files import find_log

FOREIGN_WORDS = ("pydantic", "validation error", "Kernel", "Arrow", "ParsedLogPath", "<unknown>", "codec", "Errno")

ELSEWHERE = ("_last_checkpoint", "though each file of its _delta_log looks whole")
"""What is said where the file itself is not named."""


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Delta table with a checkpoint and a commit after it."""
    table = tmp_path_factory.mktemp("delta") / "events"
    for seed in (1, 2):
        write_deltalake(str(table), arrow(events(seed)), mode="append")
    DeltaTable(str(table)).create_checkpoint()
    write_deltalake(str(table), arrow(events(3)), mode="append")
    return table


@pytest.fixture(scope="module")
def iceberg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Iceberg table of two snapshots."""
    table, root = iceberg_table(tmp_path_factory.mktemp("iceberg"))
    for seed in (1, 2):
        table.append(arrow(events(seed)))
    return root


def damaged(file: Path) -> Iterator[bytes | None]:
    """``file`` gone, empty, cut, overwritten, and as JSON of another form."""
    content = file.read_bytes()
    yield from (b"", content[: len(content) // 2], bytes(255 - byte for byte in content))
    if file.suffix != ".json":
        yield None
        return
    yield from (b"[]", b"null")
    lines = [json.loads(line) for line in content.splitlines()] if b"\n" in content else [json.loads(content)]
    of = lines[-1] if len(lines) == 1 else next(iter(lines[-1].values()))
    for key, value in list(of.items()):
        of[key] = {"no": [5]}
        yield "".join(json.dumps(line) + "\n" for line in lines).encode()
        of[key] = value


def check_damage(table: Path, file: Path, num_files: int) -> None:
    """However ``file`` is damaged, the table is read whole or refused in one line that names it."""
    content = file.read_bytes()
    for damage in damaged(file):
        file.unlink() if damage is None else file.write_bytes(damage)
        said = answer_for(table)
        file.write_bytes(content)
        assert said == f"{num_files} files" or str(table) in said
        assert said == f"{num_files} files" or any(word in said for word in (file.name, *ELSEWHERE))
        assert not [word for word in ("\n", *FOREIGN_WORDS) if word in said]


def answer_for(table: Path) -> str:
    """How many files the table has, or why it is refused."""
    try:
        return f"{len(find_log(str(table)).paths)} files"
    except DataError as error:
        return str(error)


def test_damage_in_the_log_of_a_delta_table_is_named_by_its_file(delta: Path) -> None:
    for name in ("00000000000000000001.checkpoint.parquet", "00000000000000000002.json"):
        check_damage(delta, delta / "_delta_log" / name, 3)


def test_a_gap_in_the_log_of_a_delta_table_is_named(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_deltalake(str(tmp_path / "events"), arrow(events(seed)), mode="append")
    (tmp_path / "events" / "_delta_log" / "00000000000000000001.json").unlink()
    with pytest.raises(DataError, match=r"00000000000000000001.json.*it is not there, though later versions are"):
        find_log(str(tmp_path / "events"))


def test_a_protocol_of_later_is_named(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "events"), arrow(events(1)))
    first = tmp_path / "events" / "_delta_log" / "00000000000000000000.json"
    later = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["x"], "writerFeatures": ["x"]}
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    lines = [{"protocol": later} if "protocol" in line else line for line in lines]
    first.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match="it uses the feature x, which deltalake does not know"):
        find_log(str(tmp_path / "events"))


def test_damage_in_the_metadata_of_an_iceberg_table_is_named_by_its_file(iceberg: Path) -> None:
    metadata = sorted((iceberg / "metadata").glob("*.json"))[-1]
    snapshot = json.loads(metadata.read_bytes())["snapshots"][-1]["manifest-list"].rpartition("/")[2]
    for file in (metadata, iceberg / "metadata" / snapshot, next((iceberg / "metadata").glob("*-m0.avro"))):
        check_damage(iceberg, file, 2)


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_an_empty_or_missing_file_that_a_table_counts_is_refused(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = shutil.copytree(request.getfixturevalue(kind), tmp_path / "events")
    file = next(each for each in root.rglob("*.parquet") if "_delta_log" not in each.parts)
    for damage, words in ((lambda: file.write_bytes(b""), "is empty, though its table"), (file.unlink, "not there")):
        damage()
        with pytest.raises(DataError, match=f"{file.name} .*{words}"):
            prepared(tmp_path, root)


@pytest.mark.parametrize("text", ["", "v1\n{", "v1\n[]", 'v1\n{"size": 3}', "\xff"])
def test_damage_in_the_log_of_a_sink_is_named(text: str, tmp_path: Path) -> None:
    log = spark_sink(tmp_path) / "_spark_metadata" / "2"
    log.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=f"^{log}, which lists files of the sink of a Spark stream, is damaged"):
        find_log(str(tmp_path / "sink"))


def test_rows_that_a_file_of_deletion_vectors_takes_out_do_not_count(tmp_path: Path) -> None:
    from pyroaring import BitMap

    table = tmp_path / "events"
    write_deltalake(str(table), arrow(events(1)))
    vector = (1681511377).to_bytes(4, "little") + (1).to_bytes(8, "little") + bytes(4) + BitMap([0, 7]).serialize()
    name = uuid.uuid4()
    file = table / f"deletion_vector_{name}.bin"
    file.write_bytes(b"\1" + len(vector).to_bytes(4, "big") + vector + zlib.crc32(vector).to_bytes(4, "big"))
    log = table / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020d}.json").read_text().splitlines()]
    add = next(action["add"] for action in actions if "add" in action)
    where = {"storageType": "u", "pathOrInlineDv": z85(name.bytes), "offset": 1}
    of = {**where, "sizeInBytes": len(vector), "cardinality": 2}
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    lines = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **features}},
        {"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}},
        {"add": {**add, "deletionVector": of}},
    ]
    (log / f"{1:020d}.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepared(tmp_path, table)
    assert events_in(tmp_path / "store") == sorted(row for k, row in enumerate(events(1)) if k not in (0, 7))
    for damage in (lambda: file.write_bytes(file.read_bytes()[:20]), file.unlink):
        damage()
        with pytest.raises(DataError, match="which of its rows are deleted cannot be told"):
            prepared(tmp_path, table, "damaged")


def file_of_deletes(root: Path, rows: pa.Table, content: DataFileContent) -> DataFile:
    """``rows`` as a file of deletes of a table at ``root``."""
    pq.write_table(rows, root / "data" / "deletes.parquet")
    size = (root / "data" / "deletes.parquet").stat().st_size
    file = DataFile.from_args(
        content=content,
        file_path=f"file://{root}/data/deletes.parquet",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(rows),
        file_size_in_bytes=size,
        equality_ids=[1] if content is DataFileContent.EQUALITY_DELETES else None,
    )
    file.spec_id = 0
    return file


def by_position(root: Path, table: Table) -> DataFile:
    """Rows 0, 2 and 39 of the only file."""
    [task] = table.scan().plan_files()
    rows = pa.table({"file_path": [task.file.file_path] * 3, "pos": pa.array([2, 0, 39], pa.int64())})
    return file_of_deletes(root, rows, DataFileContent.POSITION_DELETES)


def by_equality(root: Path, table: Table) -> DataFile:
    """All rows of user 3."""
    return file_of_deletes(root, pa.table({"user_id": [3]}), DataFileContent.EQUALITY_DELETES)


@pytest.mark.parametrize("make", [by_position, by_equality])
def test_rows_that_a_snapshot_of_iceberg_deletes_never_count(
    make: Callable[[Path, Table], DataFile], tmp_path: Path
) -> None:
    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    with_deletes(table, root, make(root, table))
    if make is by_equality:
        with pytest.raises(DataError, match="equality deletes, which are not read; rewrite its data files"):
            prepared(tmp_path, root)
    else:
        prepared(tmp_path, root)
        assert events_in(tmp_path / "store") == sorted(row for k, row in enumerate(events(1)) if k not in (0, 2, 39))
