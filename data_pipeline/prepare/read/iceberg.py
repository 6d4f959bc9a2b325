"""An Iceberg table by its own library: the files of one snapshot, fields by id, and rows deleted by position.

Tables are found by their folder, without a catalog: the newest metadata file there is the table. Paths in the
metadata are those of the writer; a table that was moved is read where it is now.
"""

import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from configs.errors import ConfigError, DataError
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.iceberg_metadata import check_avro, damaged, parsed_metadata
from data_pipeline.prepare.read.tables import ICEBERG, missing_library, names_in, no_snapshot
from data_pipeline.store.object_client import connection_of
from data_pipeline.store.paths import AnyPath, ObjectPath, parquet_source, path_of

_NUMBER = re.compile(r"^v?(\d+)[-.]")


def iceberg_files(root: AnyPath, snapshot: str) -> tuple[str, list[tuple[AnyPath, FileView]]]:
    """The id of the snapshot, and its files in the order in which they were committed."""
    if find_spec("pyiceberg") is None:
        raise missing_library(root, ICEBERG, "pyiceberg")
    with _reading(root):
        table, places = _open(root)
        wanted = _snapshot_of(root, table, snapshot)
        if wanted is None:
            return "empty", []
        schema = table.schemas()[wanted.schema_id] if wanted.schema_id is not None else table.schema()
        fields = {field.name: field.field_id for field in schema.fields}
        _check_lists(wanted, places, table.io)
        order = _sequence_numbers(table, wanted)
        tasks = sorted(
            table.scan(snapshot_id=wanted.snapshot_id).plan_files(),
            key=lambda task: (order.get(task.file.file_path, 0), task.file.file_path),
        )
        deletes = _Deletes(places)
        found = []
        for task in tasks:
            if task.file.file_format.value.upper() != "PARQUET":
                raise DataError(
                    f"{root} is an Iceberg table with files of {task.file.file_format.value}, which are not read; "
                    f"rewrite it as Parquet"
                )
            view = FileView(
                field_ids=fields,
                columns=list(fields),
                constants=_partition_values(table, schema, task.file),
                deleted=deletes.of(task),
            )
            found.append((places.of(task.file.file_path), view))
    return str(wanted.snapshot_id), found


class _Places:
    """Where the table's files are now: below ``root`` what the metadata has below ``recorded``."""

    def __init__(self, root: AnyPath, recorded: str) -> None:
        self.root, self.recorded = root, recorded.rstrip("/")

    def of(self, location: str) -> AnyPath:
        """The place of a file that the metadata names."""
        if self.recorded and location.startswith(f"{self.recorded}/"):
            place = self.root
            for name in location.removeprefix(f"{self.recorded}/").split("/"):
                place = place / name
            return place
        return path_of(location.removeprefix("file:") if location.startswith("file:/") else location)


def _open(root: AnyPath) -> tuple[Any, _Places]:
    from pyiceberg.catalog.noop import NoopCatalog  # an extra
    from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
    from pyiceberg.table import StaticTable

    class Files(PyArrowFileIO):  # type: ignore[misc, unused-ignore]
        """Reads by our own connections, where the files are now."""

        places = _Places(root, "")

        def new_input(self, location: str) -> Any:
            """A file that the metadata names."""
            place = self.places.of(location)
            system, path = _system_of(place)
            return PyArrowFile(location=location, path=path, fs=system)

    files = Files()
    newest = _newest_metadata(root)
    metadata = parsed_metadata(newest)
    files.places = _Places(root, metadata.location)
    table = StaticTable(
        identifier=("table", root.name),
        metadata_location=str(newest),
        metadata=metadata,
        io=files,
        catalog=NoopCatalog("none"),
    )
    return table, files.places


def _system_of(place: AnyPath) -> tuple[pafs.FileSystem, str]:
    if isinstance(place, ObjectPath):
        return connection_of(place.url)
    return pafs.LocalFileSystem(), str(place.absolute())


def _newest_metadata(root: AnyPath) -> AnyPath:
    """The one that ``version-hint.text`` names, or that of the highest number."""
    folder = root / "metadata"
    numbered: dict[int, list[str]] = {}
    for name in names_in(folder):
        if name.endswith((".metadata.json", ".metadata.json.gz", ".gz.metadata.json")) and (
            found := _NUMBER.match(name)
        ):
            numbered.setdefault(int(found[1]), []).append(name)
    if not numbered:
        raise DataError(
            f"{root} is an Iceberg table whose metadata is not there (no metadata/*.metadata.json): which of its "
            f"files count is not known; bring the metadata back, or export the table to Parquet"
        )
    hint = folder / "version-hint.text"
    number = max(numbered)
    if hint.is_file() and (text := hint.read_text().strip()).isdigit() and int(text) in numbered:
        number = max(number, int(text))
    if len(numbered[number]) > 1:
        raise DataError(
            f"{root} is an Iceberg table with {len(numbered[number])} metadata files of number {number}: "
            f"{', '.join(numbered[number])}; the catalog knows which one counts: move the others away, or export the "
            f"table to Parquet"
        )
    return folder / numbered[number][0]


def _snapshot_of(root: AnyPath, table: Any, snapshot: str) -> Any:
    """By id, or by the name of a branch or tag; empty: the current one."""
    if not snapshot:
        return table.current_snapshot()
    found = table.snapshot_by_name(snapshot) if not snapshot.isdigit() else table.snapshot_by_id(int(snapshot))
    if found is None:
        ids = [str(each.snapshot_id) for each in table.snapshots()]
        raise no_snapshot(root, ICEBERG, snapshot, f"the snapshots {', '.join(ids[-5:])}" if ids else "no snapshot")
    return found


def _check_lists(snapshot: Any, places: _Places, io: Any) -> None:
    """Raise :class:`DataError` for a list of files that is damaged: the library's decoder would end in any way."""
    check_avro(places.of(snapshot.manifest_list))
    with _decoding(places.of(snapshot.manifest_list)):
        manifests = snapshot.manifests(io)
    for manifest in manifests:
        place = places.of(manifest.manifest_path)
        check_avro(place)
        with _decoding(place):
            manifest.fetch_manifest_entry(io)


@contextmanager
def _decoding(place: AnyPath) -> Iterator[None]:
    """A file whose blocks are whole and whose content is not as Iceberg has it: its decoder is no friend of those."""
    values = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, AssertionError)
    try:
        yield
    except (*values, EOFError, SystemError, MemoryError, zlib.error) as error:
        raise damaged(place, "its content is not as Iceberg has it") from error


def _sequence_numbers(table: Any, snapshot: Any) -> dict[str, int]:
    """When each file was added, by its place."""
    return {
        entry.data_file.file_path: entry.sequence_number or 0
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
    }


def _partition_values(table: Any, schema: Any, file: Any) -> dict[str, str | None]:
    """Values of columns that the table is partitioned by as they are: files of Hive do not hold them."""
    from pyiceberg.transforms import IdentityTransform  # an extra

    found = {}
    for place, field in enumerate(table.specs()[file.spec_id].fields):
        if isinstance(field.transform, IdentityTransform) and (name := schema.find_column_name(field.source_id)):
            value = file.partition[place]
            found[name] = None if value is None else field.transform.to_human_string(schema.find_type(name), value)
    return found


class _Deletes:
    """Rows that are deleted by position, by data file; each file of deletes is read once."""

    def __init__(self, places: _Places) -> None:
        self._places = places
        self._read: dict[str, dict[str, np.ndarray]] = {}

    def of(self, task: Any) -> np.ndarray | None:
        """The deleted places of a task's file, ascending; None where there are none."""
        parts = []
        for file in task.delete_files:
            if file.file_path not in self._read:
                self._read[file.file_path] = self._positions(file)
            parts.append(self._read[file.file_path].get(task.file.file_path, np.empty(0, np.int64)))
        return np.unique(np.concatenate(parts)).astype(np.int64) if parts else None

    def _positions(self, file: Any) -> dict[str, np.ndarray]:
        place = self._places.of(file.file_path)
        if file.file_format.value.upper() == "PUFFIN":
            return _vectors_of(place)
        if file.file_format.value.upper() != "PARQUET":
            raise DataError(
                f"{place}: deletes in {file.file_format.value} are not read; rewrite the table's data files"
            )
        rows = pq.read_table(parquet_source(place), columns=["file_path", "pos"])
        paths = rows.column("file_path").to_numpy()
        positions = rows.column("pos").to_numpy()
        return {path: positions[paths == path] for path in set(paths)}


def _vectors_of(place: AnyPath) -> dict[str, np.ndarray]:
    from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file  # an extra
    from pyiceberg.table.puffin import PuffinFile

    vectors = deletion_vectors_from_puffin_file(PuffinFile(place.read_bytes()))
    return {vector.referenced_data_file: vector.to_vector().to_numpy() for vector in vectors}


@contextmanager
def _reading(root: AnyPath) -> Iterator[None]:
    from pyiceberg.exceptions import NotInstalledError, ValidationError  # an extra

    known = (NotInstalledError, ValidationError, NotImplementedError, ValueError, KeyError, TypeError)
    try:
        yield
    except (ConfigError, DataError):
        raise
    except (*known, OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        if "equality deletes" in reason:
            raise DataError(
                f"{root} is an Iceberg table with equality deletes, which are not read; rewrite its data files, such "
                f"as by CALL system.rewrite_data_files, and start again"
            ) from error
        if isinstance(error, FileNotFoundError):
            reason = f"{error.filename or reason.partition(chr(39))[2].partition(chr(39))[0]} is not there"
        raise DataError(
            f"{root} is an Iceberg table whose metadata cannot be read: {reason}; bring it back from a copy, or "
            f"export the table to Parquet"
        ) from error
