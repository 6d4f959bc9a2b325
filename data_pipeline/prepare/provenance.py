"""What a store was made from: the log's files and the options, by which a finished one is recognised."""

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from configs.atomic_files import parse_json_with_sum, write_json
from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.source import SourceConfig
from data_pipeline.prepare.read.sources import reading
from data_pipeline.prepare.read.tables import TableVersion
from data_pipeline.store.file_sums import checked_bytes
from data_pipeline.store.manifest import FORMAT_VERSION, PREPARED_FROM, Manifest, paths_of
from data_pipeline.store.paths import AnyPath, ObjectFile, path_of

_OPTIONS = (
    "columns",
    "source",
    "event_types",
    "deduplicate",
    "min_user_events",
    "min_item_events",
    "max_bad_fraction",
)

_OF_ITEMS = ("items", "items_column", "item_features")
ITEMS_FILE = "items_file"
"""The option that says what the file ``data.items`` was: path, bytes and time of change."""
_NO_CONTENT = ("snapshot", "max_skipped_fraction")
"""Keys of the source whose effect is seen in the files themselves."""


@dataclass(kw_only=True, slots=True)
class Provenance:
    """The content of ``prepared_from.json``."""

    options: dict[str, object]
    files: list[list[object]]
    """[path, bytes, time of change in ns] of each file, in the order in which they were added."""
    format_version: int = FORMAT_VERSION
    digests: list[str] = field(default_factory=list)
    """SHA-256 of each file's bytes, or an object's ETag and size; what a file is recognised by under another name."""
    num_appends: int = 0
    tables: list[dict[str, object]] = field(default_factory=list)
    """Each table of a lake that the files are of, as a ``TableVersion``."""

    def is_same_build(self, other: "Provenance") -> bool:
        """Whether the files, as they are now, and the options make the same store."""
        mine, others = (asdict(provenance) for provenance in (self, other))
        for each in (mine, others):
            each["options"] = {**each["options"], "source": _source_that_counts(each["options"]["source"])}
        return all(mine[key] == others[key] for key in ("options", "files", "tables"))


def provenance_of(config: DataConfig, paths: Sequence[AnyPath], tables: Sequence[TableVersion] = ()) -> Provenance:
    """The files as they are now, without their digests, the tables that they are of, and the options."""
    options = asdict(config)
    named = (*_OPTIONS, *(["features"] if config.features else []))  # without any a store is as it always was
    named = (*named, *(_OF_ITEMS if config.items else ()))
    of_items = {ITEMS_FILE: _items_file(config)} if config.items else {}
    return Provenance(
        options={key: options[key] for key in named} | of_items,
        files=[_as_it_is(path) for path in paths],
        tables=[asdict(table) for table in tables],
    )


def _source_that_counts(source: dict[str, object]) -> dict[str, object]:
    """Stores of before lack keys that have come since; they were made with what is the default now."""
    whole = {**asdict(SourceConfig()), **source}
    return {key: value for key, value in whole.items() if key not in _NO_CONTENT}


def _items_file(config: DataConfig) -> list[object]:
    path = path_of(config.items)
    if not path.is_file():
        raise DataError(f"data.items={config.items} is no file that is there; name the file of items by data.items")
    return _as_it_is(path)


def _as_it_is(path: AnyPath) -> list[object]:
    with reading(path):
        found = path.stat()
    return [str(path), found.st_size, found.st_mtime_ns]


def saved_provenance(store: str, manifest: Manifest) -> Provenance | None:
    """What the version of ``manifest`` was made from; None where the store does not say, as one that was written by
    hand. DataError where what it says is damaged."""
    for path, expected in paths_of(store, manifest, PREPARED_FROM):
        content = checked_bytes(path, expected)
        try:
            return Provenance(**(parse_json_with_sum(content, path) if expected else json.loads(content)))
        except DataError:
            raise
        except (ValueError, TypeError):  # of a store that was written by hand
            return None
    return None


def save_provenance(folder: Path, provenance: Provenance) -> None:
    """Write ``provenance`` into ``folder``."""
    write_json(folder / PREPARED_FROM, asdict(provenance))


def note_of_copies(provenance: Provenance, paths_of_tables: Collection[str]) -> str:
    """One line where files of a log hold the same bytes, so that their events count twice; else empty.

    Files of tables are none: two commits may write the same rows. Nor are those of other partitions, whose folders
    (``user_id=7``) say what differs.
    """
    first: dict[tuple[str, ...], str] = {}
    copies = []
    for (path, size, _), digest in zip(provenance.files, provenance.digests, strict=True):
        name = str(path)
        if name in paths_of_tables or not size:
            continue
        same = (digest, *(part for part in name.split("/")[:-1] if "=" in part))
        if same in first:
            copies.append(f"{name} and {first[same]}")
        first.setdefault(same, name)
    if not copies:
        return ""
    shown = ", ".join(copies[:3]) + (", ..." if copies[3:] else "")
    return f"note: files of the same content are each counted, so that their events count twice: {shown}"


@contextmanager
def digests_of(paths: list[AnyPath]) -> Iterator[list[Future[str]]]:
    """:func:`digest_of` each of ``paths``, on a thread while the block runs."""
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="digests")
    try:
        yield [pool.submit(digest_of, path) for path in paths]
    finally:
        pool.shutdown(cancel_futures=True)


def digest_of(path: AnyPath) -> str:
    """SHA-256 of a file's bytes, or what an object store says of them; DataError where it cannot be read."""
    with reading(path), path.open("rb") as file:
        if isinstance(file, ObjectFile) and (tag := file.metadata().get("ETag")):
            return f"etag:{tag}:{file.size}"
        return hashlib.file_digest(file, "sha256").hexdigest()
