"""Small tables of a lake: Delta, Iceberg and the sink of a Spark stream, and the events that a store has of them."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from logs import newest_of
from pyiceberg import manifest as avro
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry
from pyiceberg.table import Table

from configs.schema import DataConfig
from configs.schema.source import SourceConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import Manifest

Event = tuple[int, int, int]
START = 1_600_000_000_000


def events(seed: int, num: int = 40) -> list[Event]:
    """Events of users and items 1 to 8, at times that no other seed has."""
    draw = np.random.default_rng(seed)
    return [
        (int(u), int(i), START + 1000 * (40 * seed + k)) for k, (u, i) in enumerate(draw.integers(1, 9, (num, 2)))
    ]


def arrow(rows: list[Event]) -> pa.Table:
    """``rows`` as columns."""
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(("user_id", "item_id", "timestamp"), map(list, columns), strict=True)))


def prepared(folder: Path, log: Path | str, name: str = "store", **options: object) -> Manifest:
    """A store of the log, in ``folder``."""
    source = SourceConfig(snapshot=str(options.pop("snapshot", "")))
    return prepare(DataConfig(log=str(log), store=str(folder / name), source=source, **options))  # type: ignore[arg-type]


def events_in(store: Path) -> list[Event]:
    """What the newest version of a store holds."""
    store = newest_of(store)
    raw = pl.read_parquet(store / "items.parquet")["raw_item"]
    rows = pl.read_parquet(store / "histories" / "*.parquet").select("raw_user", "item", "timestamp").rows()
    return sorted((user, raw[i], t) for user, items, times in rows for i, t in zip(items, times, strict=True))


def iceberg_table(folder: Path, **properties: str) -> tuple[Table, Path]:
    """An empty table, and its folder."""
    (folder / "lake").mkdir()
    catalog = SqlCatalog("test", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/lake")
    catalog.create_namespace("shop")
    table = catalog.create_table("shop.events", arrow(events(0)).schema, properties=properties)
    return table, Path(table.location().removeprefix("file://"))


def z85(data: bytes) -> str:
    """As ZeroMQ's RFC 32 has it, in which Delta writes its vectors."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    words = [int.from_bytes(data[k : k + 4], "big") for k in range(0, len(data), 4)]
    return "".join(digits[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))


def spark_sink(folder: Path) -> Path:
    """A sink of four batches, the last of which is in no list."""
    root = folder / "sink"
    (root / "_spark_metadata").mkdir(parents=True)
    for name, seed in (("part-0", 1), ("part-0-failed", 1), ("part-1", 2), ("part-2", 3), ("part-3", 4)):
        pq.write_table(arrow(events(seed)), root / f"{name}.parquet")
    entry = '{{"path":"file:///elsewhere/sink/{}.parquet","isDir":false,"action":"add"}}'
    log = {"0": ["part-0"], "1.compact": ["part-0", "part-1"], "2": ["part-2"]}
    for batch, names in log.items():
        lines = ["v1", *(entry.format(name) for name in names)]
        (root / "_spark_metadata" / batch).write_text("\n".join(lines))
    return root


class _ListOfDeletes(avro.ManifestWriterV2):
    """A list of files that take rows out: no writer for Python makes one."""

    def content(self) -> ManifestContent:
        """What the list holds."""
        return ManifestContent.DELETES


def with_deletes(table: Table, root: Path, deletes: DataFile) -> None:
    """Have the newest snapshot of ``table`` count a file of ``deletes`` too."""
    io, snapshot = PyArrowFileIO(), table.current_snapshot()
    assert snapshot is not None
    at, number = snapshot.snapshot_id, snapshot.sequence_number
    target = io.new_output(f"{root}/metadata/deletes-m0.avro")
    with _ListOfDeletes(table.spec(), table.schema(), target, at, "null") as writer:
        writer.add_entry(ManifestEntry.from_args(status=1, snapshot_id=at, sequence_number=number, data_file=deletes))
    added = writer.to_manifest_file()
    target = io.new_output(f"{root}/metadata/snap-deletes.avro")
    with avro.write_manifest_list(2, target, at, None, number, "null") as lists:
        lists.add_manifests([*snapshot.manifests(io), added])
    metadata = sorted((root / "metadata").glob("*.metadata.json"))[-1]
    entry = json.loads(metadata.read_bytes())
    entry["snapshots"][-1]["manifest-list"] = f"file://{root}/metadata/snap-deletes.avro"
    metadata.write_text(json.dumps(entry))
