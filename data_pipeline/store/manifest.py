"""What a store says about itself: counts, time span, and the fingerprint of its content."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.atomic_files import json_with_sum, parse_json_with_sum
from configs.errors import ConfigError, DataError
from data_pipeline.store.features import StoredFeature
from data_pipeline.store.file_sums import FileSum, checked_bytes
from data_pipeline.store.item_content import ContentColumn, StoredContent, chosen_content, read_content
from data_pipeline.store.paths import AnyPath, files_in, path_of

FORMAT_VERSION = 2
_FIRST_FORMAT = 1
"""Of stores without versions and sums, which are read as far as they can be checked."""
MANIFEST = "manifest.json"
ITEMS = "items.parquet"
ITEM_CONTENT = "item_content.parquet"
HISTORIES = "histories/part-*.parquet"
QUARANTINE = "quarantine/part-*.parquet"
PREPARED_FROM = "prepared_from.json"
DIGESTS = ("data.fingerprint", "data.item_ids", "data.user_ids", "data.feature_codes", "data.item_content")
"""The keys of :func:`identity_digests`."""
PINS = "pins"
"""The folder of a store in which runs write down which version they read."""
LENGTHS = "lengths"
"""The folder of a store with what readers have counted in its versions; it can be made again."""
VERSIONS = "versions"
"""The folder of a store in which each version has its own manifest, and from the second on its own files."""


@dataclass(kw_only=True, slots=True)
class Manifest:
    """The content of ``manifest.json``; times are milliseconds, ``rows_*`` count rows of the log.

    ``rows_read = rows_used + sum(rows_filtered) + sum(rows_quarantined)``, to the unit. ``num_time_ties`` counts the
    events that have the time of the event before them, so that only their order of arrival orders them. Two manifests
    are equal where they count and fingerprint the same; numbering, version and files may differ.
    """

    format_version: int
    num_users: int
    num_items: int
    num_events: int
    first_time_ms: int
    last_time_ms: int
    columns: list[str]
    engine: str
    rows_read: int
    rows_used: int
    rows_filtered: dict[str, int]
    rows_quarantined: dict[str, int]
    num_time_ties: int
    longest_history: int
    fingerprint: str
    features: dict[str, StoredFeature] = field(default_factory=dict)
    """By name; the key is not written where there are none."""
    item_content: StoredContent | None = None
    """Of ``data.items``; the key is not written where there is none."""
    time_unit: str = ""
    """Of the log's times that were numbers, as it was told or found by ``auto``."""
    has_times: bool = True
    """False for a log without times, whose events have running numbers; the key is not written where true."""
    files_skipped: list[str] = field(default_factory=list)
    """Files of the log's folder that nothing said to be a part of the log."""
    tables: dict[str, str] = field(default_factory=dict)
    """The version that was read of each table of a lake, by its root."""
    version: int = field(default=1, compare=False)
    """The store's first version is 1; each append, and each prepare of something else, makes one more."""
    item_ids: str = field(default="", compare=False)
    """SHA-256 of the raw items in the order of their dense ids: which row of a table is which item."""
    user_ids: str = field(default="", compare=False)
    """The same of the users."""
    feature_codes: str = field(default="", compare=False)
    """SHA-256 of how features are encoded; empty where there are none."""
    files: dict[str, FileSum] = field(default_factory=dict, compare=False)
    """The files of the version by their paths in the store; empty for a store of format 1, which does not say."""

    def named(self, pattern: str) -> list[str]:
        """The files of the version that fit one of the patterns above, in the order of their numbers."""
        found = [name for name in self.files if fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}")]
        return sorted(found, key=lambda name: name.rpartition("/")[2])


def load_manifest(store: str, version: int = 0) -> Manifest:
    """Read a version's manifest, the newest one's for 0.

    Raises :class:`DataError` for a manifest that is missing, damaged or of another format, and :class:`ConfigError`
    for a version that the store does not have.
    """
    root = path_of(store)
    if version == 0:
        return manifest_at(root / MANIFEST, store)
    path = root / VERSIONS / version_name(version) / MANIFEST
    if path.is_file():
        return manifest_at(path, store)
    newest = manifest_at(root / MANIFEST, store)
    if newest.version != version:
        there = ", ".join(map(str, versions_of(store)))
        raise ConfigError(
            f"data.version={version}: data.store={store} has the versions {there}; name one of them, or leave "
            f"data.version out for the newest"
        )
    return newest


def versions_of(store: str) -> list[int]:
    """The versions that the store has, oldest first."""
    root = path_of(store)
    names = [each.parts[-2] for each in files_in(root / VERSIONS, f"*/{MANIFEST}")]
    found = {int(name) for name in names if name.isdecimal() and name == version_name(int(name))}
    return sorted(found | {manifest_at(root / MANIFEST, store).version})


def version_name(version: int) -> str:
    """The name of a version's folder."""
    return f"{version:06d}"


def identity_digests(manifest: Manifest) -> dict[str, str]:
    """What a trained table's rows mean, by the keys that runs, checkpoints and exports keep: the fingerprint of the
    events, which dense id is which item, user and feature value, and what is known of the items.

    A store of format 1 has the fingerprint alone.
    """
    digests = {
        "data.fingerprint": manifest.fingerprint,
        "data.item_ids": manifest.item_ids,
        "data.user_ids": manifest.user_ids,
        "data.feature_codes": manifest.feature_codes,
        "data.item_content": manifest.item_content.digest if manifest.item_content is not None else "",
    }
    return {key: digest for key, digest in digests.items() if digest}


def manifest_text(manifest: Manifest) -> str:
    """The content of ``manifest.json``, with its sum."""
    content = asdict(manifest)
    if not manifest.features:
        del content["features"]
    if manifest.item_content is None:
        del content["item_content"]
    if manifest.has_times:
        del content["has_times"]
    return json_with_sum(content)


def paths_of(store: str, manifest: Manifest, pattern: str) -> list[tuple[AnyPath, FileSum | None]]:
    """The version's files of one kind, in order, with what was written; a store of format 1 is listed."""
    root = path_of(store)
    if manifest.files:
        return [(root / name, manifest.files[name]) for name in manifest.named(pattern)]
    folder, _, name = pattern.rpartition("/")
    return [(path, None) for path in files_in(root / folder if folder else root, name)]


def item_table(store: str, manifest: Manifest, columns: list[str] | None) -> pa.Table:
    """Columns of ``items.parquet`` (all for None), in its order; :class:`DataError` when it cannot be read."""
    found = paths_of(store, manifest, ITEMS)
    if len(found) != 1:
        raise DataError(f"{store} has no {ITEMS}; put it back from a copy, or prepare into another data.store")
    path, expected = found[0]
    content = checked_bytes(path, expected)
    try:
        return pq.read_table(pa.BufferReader(content), columns=columns, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare the store again") from error


def item_content(store: str, manifest: Manifest, names: Sequence[str]) -> dict[str, ContentColumn]:
    """The item features ``names`` of all items, by dense id. Raises :class:`ConfigError` for one that the store does
    not have, :class:`DataError` where the file is damaged."""
    features = chosen_content(store, manifest.item_content, names)
    if not features:
        return {}
    found = paths_of(store, manifest, ITEM_CONTENT)
    if len(found) != 1:
        raise DataError(f"{store} has no {ITEM_CONTENT}; put it back from a copy, or prepare into another data.store")
    return read_content(*found[0], features, manifest.num_items)


def item_counts(store: str, manifest: Manifest) -> np.ndarray:
    """Events of each dense item id, int64 [V]; :class:`DataError` when the table cannot be read.

    Descending, but for a store that was appended to: its old items keep their ids.
    """
    return item_table(store, manifest, ["count"]).column("count").to_numpy().astype(np.int64)


def manifest_at(path: AnyPath, store: str) -> Manifest:
    """The manifest in a file of ``store``; raises as :func:`load_manifest`."""
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except (ConfigError, DataError):
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist: data.store={store} is not a store; make it with `shardrec prepare` first"
        ) from error
    except NotADirectoryError as error:
        raise DataError(
            f"data.store={store} is a file, and a store is a folder; make one with `shardrec prepare` first"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); put it back from a copy, or prepare the log into another data.store"
        ) from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version not in (_FIRST_FORMAT, FORMAT_VERSION):
        raise DataError(f"{path} has format_version {version}, this program reads {FORMAT_VERSION}; prepare it again")
    return _manifest_of(content if version == _FIRST_FORMAT else parse_json_with_sum(text, path), path)


def _manifest_of(content: dict[str, Any], path: AnyPath) -> Manifest:
    content.setdefault("features", {})
    content.setdefault("item_content", None)
    content.setdefault("time_unit", "")
    content.setdefault("has_times", True)
    names = {field.name for field in fields(Manifest)}
    optional = {"files_skipped", "tables", "version", "item_ids", "user_ids", "feature_codes", "files"}
    if wrong := (set(content) - names) | (names - optional - set(content)):
        raise DataError(f"{path}: keys {sorted(wrong)} are missing or unknown; prepare the store again")
    try:
        content["features"] = {name: StoredFeature(**feature) for name, feature in content["features"].items()}
        content["item_content"] = content["item_content"] and StoredContent.read(content["item_content"])
        content["files"] = {name: FileSum(**each) for name, each in content.get("files", {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: features or files cannot be read ({error}); prepare the store again") from error
    return Manifest(**content)
