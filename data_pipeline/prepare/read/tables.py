"""Folders that are tables: they also hold files that no longer count, so that they are read by version."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import ConfigError, DataError
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of

OUR_STORE = "a store that shardrec has prepared"
DELTA, ICEBERG, HUDI, SPARK_SINK, PAIMON, HIVE_ACID = (
    "a Delta table",
    "an Iceberg table",
    "a Hudi table",
    "the sink of a Spark stream",
    "a Paimon table",
    "a transactional table of Hive",
)
_MARKERS = {"_delta_log": DELTA, ".hoodie": HUDI, "_spark_metadata": SPARK_SINK}
_WAYS_OUT = {
    HUDI: "spark.read.format('hudi').load(TABLE).write.parquet(FOLDER)",
    PAIMON: "spark.read.format('paimon').load(TABLE).write.parquet(FOLDER)",
    HIVE_ACID: "INSERT OVERWRITE DIRECTORY 'FOLDER' STORED AS PARQUET SELECT * FROM TABLE",
}


@dataclass(kw_only=True, slots=True)
class TableVersion:
    """One version of a table: what a store was made of, and what an append compares."""

    kind: str
    root: str
    version: str
    files: dict[str, str] = field(default_factory=dict)
    """The files that count, each with the digest of the rows in it that do not."""


def kind_of_table(names: Iterable[str], has_metadata: bool) -> str | None:
    """What a folder with entries ``names`` is; ``has_metadata``: its ``metadata`` holds an Iceberg table's files."""
    there = set(names)
    if {"manifest.json", "items.parquet", "histories"} <= there:
        return OUR_STORE
    for marker, kind in _MARKERS.items():
        if marker in there:
            return kind
    if has_metadata:
        return ICEBERG
    if {"snapshot", "schema", "manifest"} <= there:
        return PAIMON
    if any(_is_hive_delta(name) for name in there):
        return HIVE_ACID
    return None


def is_iceberg_metadata(name: str) -> bool:
    """Whether a file of a folder ``metadata`` is an Iceberg table's."""
    return name.endswith((".metadata.json", ".metadata.json.gz")) or name == "version-hint.text"


def table_above(place: AnyPath) -> tuple[AnyPath, str] | None:
    """The table that ``place`` lies in, if any: its root and what it is. ``place`` itself does not count."""
    for folder in _folders_above(place):
        try:
            kind = kind_at(folder)
        except DataError:  # such as a bucket whose upper folders may not be listed
            return None
        if kind is not None:
            return folder, kind
    return None


def kind_at(folder: AnyPath) -> str | None:
    """What a folder is, if a table, by the entries that are looked for by name."""
    for marker, kind in _MARKERS.items():
        if (folder / marker).is_dir():
            return kind
    metadata = folder / "metadata"
    if metadata.is_dir() and any(is_iceberg_metadata(name) for name in names_in(metadata)):
        return ICEBERG
    return None


def refuse_part_of(place: AnyPath, root: AnyPath, kind: str) -> None:
    """Raise :class:`DataError`: which of the files of a part count is known by the whole table alone."""
    raise DataError(
        f"{place} is a part of {kind}, {root}: it may hold files that no longer count; set data.log={root}"
    )


def refuse_unread(root: AnyPath, kind: str) -> None:
    """Raise :class:`DataError` for a table that is not read."""
    if kind == OUR_STORE:
        raise DataError(
            f"{root} is {kind}, and is inside data.log: its files are no log; move it out, or name the log's "
            f"own files by a glob"
        )
    raise DataError(
        f"{root} is {kind}: its folder also holds files that no longer count, and it is not read; write what counts "
        f"into a folder of Parquet files, such as by {_WAYS_OUT[kind]}, and set data.log=FOLDER"
    )


def table_files(root: AnyPath, kind: str, snapshot: str) -> tuple[str, list[tuple[AnyPath, FileView]]]:
    """The version that is read, and the files that count in it, in order of arrival; ``snapshot`` empty: the newest.

    Raises ``ConfigError`` where the library is not installed and for a snapshot that there is not, ``DataError`` for
    a table that cannot be read.
    """
    if kind == DELTA:
        from data_pipeline.prepare.read.delta import delta_files  # an extra

        return delta_files(root, snapshot)
    if kind == ICEBERG:
        from data_pipeline.prepare.read.iceberg import iceberg_files  # an extra

        return iceberg_files(root, snapshot)
    if kind == SPARK_SINK:
        return _sink_files(root, snapshot)
    refuse_unread(root, kind)
    raise AssertionError("it was refused")


def missing_library(root: AnyPath, kind: str, package: str) -> ConfigError:
    """The error of a table whose library is not installed."""
    return ConfigError(
        f"data.log={root} is {kind}, which needs {package}: pip install 'shardrec[lake]', or pip install {package}"
    )


def no_snapshot(root: AnyPath, kind: str, snapshot: str, there: str) -> ConfigError:
    """The error of a version that a table does not have."""
    return ConfigError(f"data.source.snapshot={snapshot}: {root}, {kind}, has {there}; set one of them, or nothing")


def refuse_rewritten(before: list[dict[str, object]], now: list[TableVersion], store: str) -> None:
    """Raise :class:`DataError` for a table whose files of before are not all there as they were.

    What was taken out or rewritten is in the store, and adding the rest would count it twice.
    """
    known = {str(table["root"]): table for table in before}
    for table in now:
        old = known.get(table.root)
        files = old["files"] if old is not None else {}
        assert isinstance(files, dict), "a version names its files"
        changed = [file for file, digest in files.items() if table.files.get(file) != digest]
        if old is not None and changed:
            raise DataError(
                f"{table.root}: between version {old['version']}, which is in data.store={store}, and "
                f"{table.version}, {len(changed):,} files were deleted, compacted or updated, such as {changed[0]}: "
                f"an append would count their rows twice; prepare the table at once into another data.store"
            )


def names_in(folder: AnyPath) -> list[str]:
    """The names of what lies right in a folder, in order."""
    if isinstance(folder, Path):
        return sorted(entry.name for entry in folder.iterdir())
    depth = len(folder.parts)
    return sorted({each.parts[depth] for each in folder.files_below()})


def _folders_above(place: AnyPath) -> Iterator[AnyPath]:
    if isinstance(place, Path):
        yield from place.absolute().parents
        return
    parts = place.url.split("/")
    for end in range(len(parts) - 1, 3, -1):
        yield ObjectPath("/".join(parts[:end]))


def _is_hive_delta(name: str) -> bool:
    start, _, rest = name.partition("_")
    if start == "delete":
        start, _, rest = rest.partition("_")
    digits = rest.split("_")
    return start in ("delta", "base") and all(len(each) >= 4 and each.isdigit() for each in digits) and bool(rest)


def _sink_files(root: AnyPath, snapshot: str) -> tuple[str, list[tuple[AnyPath, FileView]]]:
    """The files of finished batches: what a failed attempt has left is in no list.

    The log of a sink is one file a batch, and now and then one that holds all before it. Paths are those of the
    writer; the folder may have been moved since.
    """
    log = root / "_spark_metadata"
    batches = {name: int(name.removesuffix(".compact")) for name in names_in(log) if _is_batch(name)}
    if snapshot:
        if not snapshot.isdigit() or int(snapshot) not in batches.values():
            raise no_snapshot(root, SPARK_SINK, snapshot, f"batches up to {max(batches.values(), default=-1)}")
        batches = {name: number for name, number in batches.items() if number <= int(snapshot)}
    compact = max((number for name, number in batches.items() if name.endswith(".compact")), default=-1)
    wanted = [
        name
        for name, number in sorted(batches.items(), key=lambda pair: pair[1])
        if number > compact or name == f"{compact}.compact"
    ]
    written: dict[str, None] = {}
    for name in wanted:
        for entry in _sink_entries(log / name):
            if entry.get("action") == "delete":
                written.pop(entry["path"], None)
            else:
                written[entry["path"]] = None
    below = set(_relative_paths(root))
    found = [(_moved(root, path, below), FileView()) for path in written]
    return str(max(batches.values(), default=-1)), found


def _sink_entries(batch: AnyPath) -> list[dict[str, str]]:
    """The entries of the file of one batch; :class:`DataError` where it is damaged."""
    try:
        version, *lines = batch.read_bytes().decode().splitlines()
        entries = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        version, entries = "", []
    if not version.startswith("v") or not all(isinstance(each, dict) and "path" in each for each in entries):
        raise DataError(
            f"{batch}, which lists files of the sink of a Spark stream, is damaged; bring it back from a copy, or "
            f"export the data"
        )
    return entries


def _is_batch(name: str) -> bool:
    return name.removesuffix(".compact").isdigit()


def _relative_paths(root: AnyPath) -> list[str]:
    if isinstance(root, Path):
        return [each.relative_to(root).as_posix() for each in root.rglob("*") if each.is_file()]
    return [each.url.removeprefix(f"{root.url}/") for each in root.files_below()]


def _moved(root: AnyPath, written: str, below: set[str]) -> AnyPath:
    """The file that was written as ``written``, where the folder is now."""
    parts = (written if "://" in written else f"file://{written}").split("/")
    plain = [path_of(f"file:///{part}").name if "%" in part else part for part in parts]
    for start in range(3, len(parts)):
        for names in (parts, plain):
            if "/".join(names[start:]) in below:
                place = root
                for name in names[start:]:
                    place = place / name
                if place.stat().st_size == 0:
                    raise DataError(f"{place} is empty, though _spark_metadata lists it; bring it back from a copy")
                return place
    raise DataError(
        f"{root}: {written}, which _spark_metadata lists, is not there; bring it back, or export the data"
    )
