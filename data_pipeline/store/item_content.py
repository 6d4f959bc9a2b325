"""What a store remembers of its items' content, and the content itself, by dense id.

V items, K values of all of them, E numbers of a vector.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import ConfigError, DataError
from configs.schema.item_features import ItemFeatureType, Ngrams
from data_pipeline.store.features import StoredFeature
from data_pipeline.store.file_sums import FileSum, checked_bytes
from data_pipeline.store.paths import AnyPath

LISTS = (ItemFeatureType.CATEGORIES, ItemFeatureType.TEXT)
"""Types of which an item has any number of codes."""


@dataclass(kw_only=True, slots=True)
class StoredItemFeature:
    """One feature of items in ``manifest.json``: how it was encoded, so that new items are encoded alike."""

    type: ItemFeatureType
    values: StoredFeature | None = None
    """Of a category, of each of several categories, and of a number: as a feature of events."""
    separator: str = ""
    ngrams: Ngrams = Ngrams.WORDS
    max_ngram: int = 0
    num_buckets: int = 0
    width: int = 0
    """Numbers of a vector."""
    scale: float = 1.0
    """Vectors are divided by it: the root mean square of their lengths when the store was made."""
    num_missing: int = 0
    """Items of the store without a value, those that ``data.items`` does not have included."""

    def __post_init__(self) -> None:
        """What is read from JSON becomes typed."""
        self.type, self.ngrams = ItemFeatureType(self.type), Ngrams(self.ngrams)
        if isinstance(self.values, dict):
            self.values = StoredFeature(**self.values)

    @property
    def num_codes(self) -> int:
        """Codes of a category, of categories or of a text lie below it; 0 for a number and a vector."""
        if self.type is ItemFeatureType.TEXT:
            return self.num_buckets
        return self.values.num_codes if self.values is not None else 0


@dataclass(kw_only=True, slots=True)
class StoredContent:
    """What a manifest says of the content of a version's items."""

    features: dict[str, StoredItemFeature] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows of ``data.items`` by what became of them; they add up to ``read``."""
    num_items_without: int = 0
    """Items of the store that no row speaks of."""
    digest: str = ""
    """SHA-256 of the encoded content in the order of the dense ids, and of how it was encoded."""

    @classmethod
    def read(cls, content: dict[str, object]) -> "StoredContent":
        """Of JSON; raises TypeError, ValueError or AttributeError where it is none."""
        found = cls(**content)  # type: ignore[arg-type]
        features: dict[str, dict[str, object]] = found.features  # type: ignore[assignment]
        found.features = {name: StoredItemFeature(**each) for name, each in features.items()}  # type: ignore[arg-type]
        return found


@dataclass(kw_only=True, slots=True)
class ContentColumn:
    """One feature of all items."""

    feature: StoredItemFeature
    values: np.ndarray
    """Codes int32 [V], numbers float32 [V], vectors float32 [V, E], or with ``offsets`` the codes [K]."""
    offsets: np.ndarray | None = None
    """int64 [V + 1]: where the codes of each item begin; None where an item has one value."""


def chosen_content(store: str, content: StoredContent | None, names: Sequence[str]) -> dict[str, StoredItemFeature]:
    """The ``names`` of the content of ``store``; :class:`ConfigError` for one that is not there."""
    there = content.features if content is not None else {}
    for name in names:
        if name not in there:
            raise ConfigError(
                f"model.item_features={list(names)}: data.store={store} has no item feature {name!r}, it has "
                f"{sorted(there) or 'none'}; prepare it with data.items=FILE data.item_features.{name}.type=..., or "
                f"leave the name out"
            )
    return {name: there[name] for name in names}


def read_content(
    path: AnyPath, expected: FileSum | None, features: dict[str, StoredItemFeature], num_items: int
) -> dict[str, ContentColumn]:
    """The ``features`` of all items; :class:`DataError` where the file is damaged or of other items."""
    try:
        table = pq.read_table(
            pa.BufferReader(checked_bytes(path, expected)), columns=list(features), page_checksum_verification=True
        )
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}); prepare the store again") from error
    if table.num_rows != num_items or table.num_columns != len(features):
        raise DataError(f"{path} has {table.num_rows} items, the manifest {num_items}; prepare the store again")
    return {name: _column(table.column(name), feature, path, name) for name, feature in features.items()}


def _column(column: pa.ChunkedArray, feature: StoredItemFeature, path: AnyPath, name: str) -> ContentColumn:
    array = column.combine_chunks()
    array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
    has_lists = feature.type in (*LISTS, ItemFeatureType.VECTOR)
    values = (array.flatten() if has_lists else array).to_numpy(zero_copy_only=False)
    is_number = feature.type in (ItemFeatureType.NUMBER, ItemFeatureType.VECTOR)
    is_sound = array.null_count == 0 and values.dtype == (np.float32 if is_number else np.int32)
    if feature.type is ItemFeatureType.VECTOR:
        is_sound = is_sound and len(values) == len(array) * feature.width
        values = values.reshape(len(array), -1) if is_sound else values
    if feature.num_codes and len(values):
        is_sound = is_sound and values.min() >= 0 and values.max() < feature.num_codes
    if not is_sound:
        raise DataError(f"{path}: {name} holds other values than manifest.json says; prepare the store again")
    offsets = array.offsets.to_numpy().astype(np.int64) if feature.type in LISTS else None
    return ContentColumn(feature=feature, values=values, offsets=offsets)


def content_digest(columns: dict[str, ContentColumn]) -> str:
    """Of the encoded content of all items, and of how it was encoded; 64 hex digits."""
    found = hashlib.sha256(b"shardrec-item-content-1")
    for name, column in sorted(columns.items()):
        choices = {key: value for key, value in asdict(column.feature).items() if key != "num_missing"}
        found.update(json.dumps([name, choices], sort_keys=True).encode())
        for array in (column.values, column.offsets):
            if array is not None:
                little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
                found.update(hashlib.sha256(little.tobytes()).digest())
    return found.hexdigest()
