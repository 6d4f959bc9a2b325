"""Tables of a lake are read by version: what no longer counts is not read, in every layout that a table may have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from lake import arrow, events, events_in, iceberg_table, prepared, spark_sink, z85
from pyiceberg.types import LongType

from configs.errors import ConfigError, DataError
from configs.schema import ColumnsConfig, DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.log_files import find_log
from data_pipeline.prepare.read.parquet import num_rows_in, scan_parquet
from data_pipeline.prepare.spark import tasks
from data_pipeline.prepare.spark.tasks import Piece
from data_pipeline.store.paths import ObjectPath
from object_store import BUCKET, FaultyProxy


def test_a_delta_table_is_its_newest_version_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    table = str(tmp_path / "events")
    write_deltalake(table, arrow(events(1)))
    write_deltalake(table, arrow(events(2)), mode="append")
    write_deltalake(table, arrow(events(3)), mode="overwrite")
    write_deltalake(table, arrow(events(4)), mode="append")
    DeltaTable(table).delete("user_id = 3")
    manifest = prepared(tmp_path, table)
    expected = sorted(row for row in events(3) + events(4) if row[0] != 3)
    assert events_in(tmp_path / "store") == expected
    assert manifest.rows_read == len(expected)
    assert manifest.tables == {table: "4"}
    assert prepared(tmp_path, table, "old", snapshot="1").tables == {table: "1"}
    assert events_in(tmp_path / "old") == sorted(events(1) + events(2))


@pytest.mark.parametrize("snapshot", ["99", "newest"])
def test_a_version_that_is_not_there_is_named(snapshot: str, tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "events"), arrow(events(1)))
    with pytest.raises(ConfigError, match=rf"data.source.snapshot={snapshot}.*versions up to 0"):
        prepared(tmp_path, tmp_path / "events", snapshot=snapshot)


def test_partitions_and_columns_of_later_are_read(tmp_path: Path) -> None:
    table, rows = str(tmp_path / "events"), events(1)
    first = arrow(rows).append_column("kind", pa.array(["a b" if row[0] % 2 else "x=y" for row in rows]))
    write_deltalake(table, first, partition_by=["kind"])
    wider = (
        arrow(events(2)).append_column("kind", pa.array(["new"] * 40)).append_column("price", pa.array([1.5] * 40))
    )
    write_deltalake(table, wider, mode="append", schema_mode="merge")
    config = DataConfig(
        log=table,
        store=str(tmp_path / "store"),
        columns=ColumnsConfig(event_type="kind"),
        event_types=["a b", "new"],
    )
    prepare(config)
    assert events_in(tmp_path / "store") == sorted([row for row in rows if row[0] % 2] + events(2))


def with_deletion_vector(table: Path, deleted: list[int]) -> None:
    """Write a version of a Delta table of one file, of which the rows ``deleted`` do not count any more."""
    from pyroaring import BitMap

    payload = (1681511377).to_bytes(4, "little") + (1).to_bytes(8, "little") + (0).to_bytes(4, "little")
    payload += BitMap(deleted).serialize()
    payload += b"\0" * (-len(payload) % 4)
    log = sorted((table / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for path in log for line in path.read_text().splitlines()]
    add = next(action["add"] for action in actions if "add" in action)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": z85(payload),
        "sizeInBytes": len(payload),
        "cardinality": len(deleted),
    }
    features = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    removed = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    lines = [{"protocol": protocol}, {"remove": removed}, {"add": {**add, "deletionVector": vector}}]
    target = table / "_delta_log" / f"{len(log):020d}.json"
    target.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_rows_that_a_deletion_vector_takes_out_do_not_count(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "events"), arrow(events(1)))
    with_deletion_vector(tmp_path / "events", [0, 7, 8, 39])
    manifest = prepared(tmp_path, tmp_path / "events")
    assert events_in(tmp_path / "store") == sorted(row for k, row in enumerate(events(1)) if k not in (0, 7, 8, 39))
    assert manifest.rows_read == 36


def test_an_iceberg_table_is_its_current_snapshot_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    table.append(arrow(events(2)))
    before = str(table.current_snapshot().snapshot_id)  # type: ignore[union-attr]
    table.delete("user_id == 3")
    manifest = prepared(tmp_path, root)
    assert events_in(tmp_path / "store") == sorted(row for row in events(1) + events(2) if row[0] != 3)
    assert manifest.tables == {str(root): str(table.current_snapshot().snapshot_id)}  # type: ignore[union-attr]
    prepared(tmp_path, root, "old", snapshot=before)
    assert events_in(tmp_path / "old") == sorted(events(1) + events(2))
    table.manage_snapshots().create_tag(int(before), "friday").commit()
    assert prepared(tmp_path, root, "tagged", snapshot="friday").tables == {str(root): before}
    with pytest.raises(ConfigError, match=r"data.source.snapshot=7.*snapshots"):
        prepared(tmp_path, root, "none", snapshot="7")


def test_a_column_is_known_by_its_id_and_not_by_its_name(tmp_path: Path) -> None:
    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    with table.update_schema() as update:
        update.rename_column("item_id", "product")
    with table.update_schema() as update:
        update.add_column("item_id", LongType())
    renamed = arrow(events(2)).rename_columns(["user_id", "product", "timestamp"])
    table.append(renamed.append_column("item_id", pa.array([77] * 40)))
    prepare(DataConfig(log=str(root), store=str(tmp_path / "store"), columns=ColumnsConfig(item="product")))
    assert events_in(tmp_path / "store") == sorted(events(1) + events(2))


def test_rows_that_iceberg_deletes_by_position_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No writer for Python makes files of deletes: the plan is changed to hold one."""
    from pyiceberg.manifest import DataFile, FileFormat
    from pyiceberg.table import DataScan, FileScanTask

    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    [task] = table.scan().plan_files()
    deletes = pa.table({"file_path": [task.file.file_path] * 3, "pos": [2, 0, 39]})
    pq.write_table(deletes, root / "data" / "deletes.parquet")
    file = DataFile.from_args(
        file_path=f"file://{root}/data/deletes.parquet", file_format=FileFormat.PARQUET, content=1
    )
    monkeypatch.setattr(DataScan, "plan_files", lambda self: [FileScanTask(task.file, {file})])
    prepared(tmp_path, root)
    assert events_in(tmp_path / "store") == sorted(row for k, row in enumerate(events(1)) if k not in (0, 2, 39))


def test_a_table_that_was_moved_is_read_where_it_is(tmp_path: Path) -> None:
    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    shutil.move(root, tmp_path / "moved")
    prepared(tmp_path, tmp_path / "moved")
    assert events_in(tmp_path / "store") == sorted(events(1))


def test_the_sink_of_a_spark_stream_is_what_its_log_lists(tmp_path: Path) -> None:
    prepared(tmp_path, spark_sink(tmp_path))
    assert events_in(tmp_path / "store") == sorted(events(1) + events(2) + events(3))
    prepared(tmp_path, tmp_path / "sink", "old", snapshot="1")
    assert events_in(tmp_path / "old") == sorted(events(1) + events(2))


def test_a_file_that_a_sink_lists_and_that_is_gone_is_named(tmp_path: Path) -> None:
    (spark_sink(tmp_path) / "part-1.parquet").unlink()
    with pytest.raises(DataError, match=r"part-1.parquet, which _spark_metadata lists, is not there"):
        prepared(tmp_path, tmp_path / "sink")


def hudi(folder: Path) -> Path:
    (folder / "table" / ".hoodie").mkdir(parents=True)
    pq.write_table(arrow(events(1)), folder / "table" / "a.parquet")
    return folder / "table"


def paimon(folder: Path) -> Path:
    for name in ("snapshot", "schema", "manifest", "bucket-0"):
        (folder / "table" / name).mkdir(parents=True)
    return folder / "table"


def hive(folder: Path) -> Path:
    (folder / "table" / "base_0000002").mkdir(parents=True)
    return folder / "table"


def iceberg_without_metadata(folder: Path) -> Path:
    (folder / "table" / "metadata").mkdir(parents=True)
    (folder / "table" / "metadata" / "version-hint.text").write_text("2")
    return folder / "table"


def iceberg_with_broken_metadata(folder: Path) -> Path:
    root = iceberg_without_metadata(folder)
    (root / "metadata" / "v2.metadata.json").write_text('{"format-version": 2}')
    return root


def our_store(folder: Path) -> Path:
    (folder / "table").mkdir()
    pq.write_table(arrow(events(1)), folder / "table" / "log.parquet")
    prepared(folder, folder / "table" / "log.parquet", "table/store")
    return folder / "table"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (hudi, "Hudi"),
        (paimon, "Paimon"),
        (hive, "Hive"),
        (iceberg_without_metadata, "metadata is not there"),
        (iceberg_with_broken_metadata, "cannot be read: its key .location. is missing"),
        (our_store, "a store that shardrec has prepared"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_not_read_is_refused_by_name(
    make: Callable[[Path], Path], words: str, inside: bool, tmp_path: Path
) -> None:
    root = make(tmp_path)
    with pytest.raises(DataError, match=words) as refused:
        find_log(str(root.parent if inside else root))
    assert str(root) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("part", ["data", "data/*.parquet", "metadata"])
def test_a_part_of_an_iceberg_table_is_refused_with_the_tables_root(part: str, tmp_path: Path) -> None:
    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    with pytest.raises(DataError, match=f"a part of an Iceberg table, {root}"):
        find_log(f"{root}/{part}")


def test_a_part_of_a_delta_table_is_refused_with_the_tables_root(tmp_path: Path) -> None:
    root = tmp_path / "events"
    kinds = arrow(events(1)).append_column("kind", pa.array(["a"] * 40))
    write_deltalake(str(root), kinds, partition_by=["kind"])
    file = next((root / "kind=a").iterdir())
    for part in (root / "kind=a", file, root / "*" / "*.parquet"):
        with pytest.raises(DataError, match=f"a part of a Delta table, {root}"):
            find_log(str(part))


def test_the_library_that_is_missing_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_deltalake(str(tmp_path / "delta"), arrow(events(1)))
    _, iceberg = iceberg_table(tmp_path)
    for module, root, package in (("delta", tmp_path / "delta", "deltalake"), ("iceberg", iceberg, "pyiceberg")):
        monkeypatch.setattr(f"data_pipeline.prepare.read.{module}.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=rf"{package}: pip install 'shardrec\[lake\]'"):
            find_log(str(root))


def test_a_build_is_known_by_the_tables_version(tmp_path: Path) -> None:
    table, store = str(tmp_path / "events"), tmp_path / "store" / "manifest.json"
    write_deltalake(table, arrow(events(1)))
    prepared(tmp_path, table)
    before = store.stat().st_mtime_ns
    prepared(tmp_path, table)
    assert store.stat().st_mtime_ns == before
    with_deletion_vector(tmp_path / "events", [5])
    assert prepared(tmp_path, table).num_events == 39


def test_an_append_adds_what_a_table_has_gained(tmp_path: Path) -> None:
    table = str(tmp_path / "events")
    for seed in (1, 1, 2):  # two commits of the same rows are no copy of a file
        write_deltalake(table, arrow(events(seed)), mode="append")
        manifest = prepared(tmp_path, table, append=True)
    assert events_in(tmp_path / "store") == sorted(events(1) + events(1) + events(2))
    assert manifest.tables == {table: "2"}


@pytest.mark.parametrize("change", ["delete", "compact", "vector"])
def test_an_append_of_a_table_that_was_rewritten_is_refused(change: str, tmp_path: Path) -> None:
    table = str(tmp_path / "events")
    for seed in (1,) if change == "vector" else (1, 2):
        write_deltalake(table, arrow(events(seed)), mode="append")
    prepared(tmp_path, table, append=True)
    if change == "delete":
        DeltaTable(table).delete("user_id = 3")
    elif change == "compact":
        DeltaTable(table).optimize.compact()
    else:
        with_deletion_vector(tmp_path / "events", [5])
    with pytest.raises(DataError, match="count their rows twice"):
        prepared(tmp_path, table, append=True)


def test_a_place_among_the_rows_that_count_is_found_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"row": range(50)}).write_parquet(path, row_group_size=7)
    deleted = np.array([0, 1, 6, 7, 20, 21, 22, 49], dtype=np.int64)
    view = FileView(deleted=deleted)
    left = [row for row in range(50) if row not in deleted]
    for first in range(len(left) + 1):
        assert scan_parquet(path, first, view).collect()["row"].to_list() == left[first:]
    assert num_rows_in(path) - view.num_deleted == len(left)
    assert scan_parquet(path, 0, view).select(pl.len()).collect().item() == len(left)


def test_a_task_of_spark_reads_a_file_as_its_table_has_it(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "events"), arrow(events(1)))
    with_deletion_vector(tmp_path / "events", [0, 3])
    config = DataConfig(log=str(tmp_path / "events"))
    log = find_log(config.log)
    pieces = [Piece(path=path, file=0, view=log.view(path)) for path in log.paths]  # type: ignore[arg-type]
    ids = pl.DataFrame({"id": [0]}).to_arrow().to_batches()
    batches = list(tasks.scan(pieces, config, {"user": pl.Int64(), "item": pl.Int64()})(ids))
    assert pl.from_arrow(pa.Table.from_batches(batches))["user"].count() == 38  # type: ignore[index, union-attr]


def test_tables_in_a_bucket_are_read_by_version(tmp_path: Path, proxy: FaultyProxy) -> None:
    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    table.delete("user_id == 3")
    write_deltalake(str(tmp_path / "delta"), arrow(events(1)))
    write_deltalake(str(tmp_path / "delta"), arrow(events(2)), mode="overwrite")
    expected = {"iceberg": [row for row in events(1) if row[0] != 3], "delta": events(2)}
    for name, folder in (("iceberg", root), ("delta", tmp_path / "delta")):
        for path in folder.rglob("*"):
            if path.is_file():
                ObjectPath(f"s3://{BUCKET}/lake/{name}/{path.relative_to(folder).as_posix()}").send(path)
        prepared(tmp_path, f"s3://{BUCKET}/lake/{name}", f"store-{name}")
        assert events_in(tmp_path / f"store-{name}") == sorted(expected[name])
    with pytest.raises(DataError, match="a part of an Iceberg table"):
        find_log(f"s3://{BUCKET}/lake/iceberg/data")
