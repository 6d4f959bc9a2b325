"""The fingerprint of a store's content: the same for every layout of the log, every engine and machine."""

import hashlib
import json
from dataclasses import asdict

import numpy as np
import polars as pl

from data_pipeline.store.features import StoredFeature

_VERSION = b"shardrec-fingerprint-1"


class Fingerprint:
    """SHA-256 over the users in ascending order of raw id, with the (raw item, time) of their events in order.

    Each column has a hash of its own, fed with its values' canonical bytes (int64 little-endian; strings as UTF-8,
    with their byte lengths in one more hash), so that it does not matter how the rows were cut into batches. Dense
    ids take no part. Integer ids and strings of the same digits are different content. Features take part with their
    raw values, and with the statistics and choices by which those were encoded; a store without any is as before.
    """

    def __init__(self, features: dict[str, StoredFeature] | None = None) -> None:
        self._columns: dict[str, hashlib._Hash] = {}
        for name, feature in (features or {}).items():
            self._feed(f"feature/{name}/choices", json.dumps(asdict(feature), sort_keys=True).encode())

    def update(
        self,
        users: pl.Series,
        lengths: pl.Series,
        items: pl.Series,
        times: pl.Series,
        features: dict[str, pl.Series] | None = None,
    ) -> None:
        """Add users [B] with history ``lengths`` [B], and their events' raw ``items`` [T], ``times`` [T] and features
        [T], strings or float64 with nulls."""
        for name, values in (features or {}).items():
            self._update_feature(f"feature/{name}", values)
        for name, values in (("user", users), ("length", lengths), ("item", items), ("timestamp", times)):
            self._update_ids(name, values)

    @property
    def user_ids(self) -> str:
        """The digest of the raw users in the order of their dense ids, 64 hex digits."""
        return self._digest_of("user/")

    def _update_ids(self, name: str, values: pl.Series) -> None:
        if values.dtype == pl.String:
            self._feed(f"{name}/num_bytes", _int64_bytes(values.str.len_bytes()))
            self._feed(f"{name}/utf8", values.str.join("").item().encode())
        else:
            self._feed(f"{name}/int64", _int64_bytes(values))

    def _update_feature(self, name: str, values: pl.Series) -> None:
        if values.dtype == pl.String:
            self._feed(f"{name}/num_bytes", _int64_bytes(values.str.len_bytes().cast(pl.Int64).fill_null(-1)))
            self._feed(f"{name}/utf8", values.str.join("").item().encode())
        else:
            self._feed(f"{name}/is_null", _int64_bytes(values.is_null()))
            self._feed(f"{name}/float64", np.ascontiguousarray(values.fill_null(0.0).to_numpy(), dtype="<f8").data)

    def hexdigest(self) -> str:
        """The fingerprint of all that was added, 64 hex digits."""
        return self._digest_of("")

    def _digest_of(self, prefix: str) -> str:
        """Of the columns whose names begin with ``prefix``."""
        whole = hashlib.sha256(_VERSION)
        for name in sorted(name for name in self._columns if name.startswith(prefix)):
            whole.update(name.encode() + b"\0" + self._columns[name].digest())
        return whole.hexdigest()

    def _feed(self, name: str, data: bytes | memoryview) -> None:
        self._columns.setdefault(name, hashlib.sha256()).update(data)


def item_ids_digest(raw_items: pl.Series) -> str:
    """The digest of raw items [V] in the order of their dense ids, 64 hex digits."""
    found = Fingerprint()
    found._update_ids("item", raw_items)
    return found._digest_of("item/")


def feature_codes_digest(features: dict[str, StoredFeature]) -> str:
    """The digest of how features are encoded; empty where there are none."""
    if not features:
        return ""
    text = json.dumps({name: asdict(feature) for name, feature in features.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _int64_bytes(values: pl.Series) -> memoryview:
    return np.ascontiguousarray(values.cast(pl.Int64).to_numpy(), dtype="<i8").data
