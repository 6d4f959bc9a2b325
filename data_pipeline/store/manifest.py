"""What a store says about itself: counts, time span, and the fingerprint of its content."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import ConfigError, DataError
from data_pipeline.store.features import StoredFeature
from data_pipeline.store.paths import parquet_source, path_of

FORMAT_VERSION = 1


@dataclass(kw_only=True, slots=True)
class Manifest:
    """The content of ``manifest.json``; times are milliseconds, ``rows_*`` count rows of the log.

    ``rows_read = rows_used + sum(rows_filtered) + sum(rows_quarantined)``, to the unit. ``num_time_ties`` counts the
    events that have the time of the event before them, so that only their order of arrival orders them.
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
    time_unit: str = ""
    """Of the log's times that were numbers, as it was told or found by ``auto``."""
    has_times: bool = True
    """False for a log without times, whose events have running numbers; the key is not written where true."""


def load_manifest(store: str) -> Manifest:
    """Read the manifest of ``store``; :class:`DataError` when it is missing, unreadable or of another version."""
    path = path_of(store) / "manifest.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ConfigError, DataError):
        raise
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist: data.store={store} is not a store; make it with `shardrec prepare` first"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare the store again") from error
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format_version {version}, this program reads {FORMAT_VERSION}; prepare it again")
    names = {field.name for field in fields(Manifest)}
    content = {"features": {}, "time_unit": "", "has_times": True} | content
    if set(content) != names:
        raise DataError(
            f"{path}: keys {sorted(set(content) ^ names)} are missing or unknown; prepare the store again"
        )
    try:
        content["features"] = {name: StoredFeature(**feature) for name, feature in content["features"].items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: features cannot be read ({error}); prepare the store again") from error
    return Manifest(**content)


def save_manifest(store: str, manifest: Manifest) -> None:
    """Write ``manifest.json`` into the folder ``store``."""
    content = asdict(manifest)
    if not manifest.features:
        del content["features"]
    if manifest.has_times:
        del content["has_times"]
    text = json.dumps(content, indent=2) + "\n"
    (Path(store) / "manifest.json").write_text(text, encoding="utf-8")


def item_table(store: str, columns: list[str]) -> pa.Table:
    """Columns of ``items.parquet``, in the order of the file; :class:`DataError` when it cannot be read."""
    path = path_of(store) / "items.parquet"
    try:
        return pq.read_table(parquet_source(path), columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare the store again") from error


def item_counts(store: str) -> np.ndarray:
    """Events of each dense item id, int64 [V]; :class:`DataError` when the table cannot be read.

    Descending, but for a store that was appended to: its old items keep their ids.
    """
    return item_table(store, ["count"]).column("count").to_numpy().astype(np.int64)
