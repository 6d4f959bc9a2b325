"""Of lake tables what no writer for Python makes: renamed columns of Delta, deletion vectors of Iceberg."""

import json
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from lake import arrow, events, events_in, iceberg_table, prepared, with_deletes
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.typedef import Record
from pyroaring import BitMap

from configs.schema import ColumnsConfig


def with_renamed_columns(table: Path, names: dict[str, str]) -> None:
    """Have the first version of a Delta table call its columns, whose files keep the names before, by ``names``."""
    commit = table / "_delta_log" / f"{0:020d}.json"
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    for action in actions:
        if "metaData" in action:
            schema = json.loads(action["metaData"]["schemaString"])
            for number, field in enumerate(schema["fields"], start=1):
                before = field["name"]
                field["metadata"] = {
                    "delta.columnMapping.id": number,
                    "delta.columnMapping.physicalName": before,
                }
                field["name"] = names.get(before, before)
            action["metaData"]["schemaString"] = json.dumps(schema)
            partitions = action["metaData"]["partitionColumns"]
            action["metaData"]["partitionColumns"] = [names.get(before, before) for before in partitions]
            action["metaData"]["configuration"] = {
                "delta.columnMapping.mode": "name",
                "delta.columnMapping.maxColumnId": str(len(schema["fields"])),
            }
        if "protocol" in action:
            features = {"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]}
            action["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, **features}
    commit.write_text("".join(json.dumps(action) + "\n" for action in actions))


def test_a_renamed_column_of_a_delta_table_is_read_by_its_name_of_now(tmp_path: Path) -> None:
    """Names that changed places are the trap: the files still have the old ones."""
    table, rows = tmp_path / "events", events(1)
    kinds = pa.array([f"day {row[0] % 2}" for row in rows])
    write_deltalake(str(table), arrow(rows).append_column("kind", kinds), partition_by=["kind"])
    with_renamed_columns(table, {"user_id": "item_id", "item_id": "user_id", "kind": "day"})
    manifest = prepared(
        tmp_path, table, columns=ColumnsConfig(event_type="day"), event_types=["day 1"], deduplicate=False
    )
    swapped = [(item, user, *rest) for user, item, *rest in rows if user % 2]
    assert sorted(events_in(tmp_path / "store")) == sorted(swapped)
    assert manifest.rows_read == len(rows)


def test_rows_that_a_deletion_vector_of_iceberg_takes_out_do_not_count(tmp_path: Path) -> None:
    table, root = iceberg_table(tmp_path)
    table.append(arrow(events(1)))
    [task] = table.scan().plan_files()
    with_deletes(table, root, puffin_file(root, task.file.file_path, [0, 2, 39]))
    prepared(tmp_path, root)
    assert events_in(tmp_path / "store") == sorted(row for k, row in enumerate(events(1)) if k not in (0, 2, 39))


def puffin_file(root: Path, data_file: str, deleted: list[int]) -> DataFile:
    """A file of deletion vectors, as version 3 of Iceberg has it, by which rows of ``data_file`` do not count."""
    vector = (1681511377).to_bytes(4, "little") + (1).to_bytes(8, "little") + bytes(4) + BitMap(deleted).serialize()
    blob = len(vector).to_bytes(4, "big") + vector + bytes(4)
    described = {
        "type": "deletion-vector-v1",
        "fields": [],
        "snapshot-id": -1,
        "sequence-number": -1,
        "offset": 4,
        "length": len(blob),
        "properties": {"referenced-data-file": data_file, "cardinality": str(len(deleted))},
    }
    footer = json.dumps({"blobs": [described]}).encode()
    end = b"PFA1" + footer + len(footer).to_bytes(4, "little") + bytes(4) + b"PFA1"
    (root / "data" / "deletes.puffin").write_bytes(b"PFA1" + blob + end)
    file = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=f"file://{root}/data/deletes.puffin",
        file_format=FileFormat.PUFFIN,
        partition=Record(),
        record_count=len(deleted),
        file_size_in_bytes=(root / "data" / "deletes.puffin").stat().st_size,
    )
    file.spec_id = 0
    return file
