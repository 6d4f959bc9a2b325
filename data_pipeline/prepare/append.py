"""New files into a store that is there: its events come first, its items keep their ids, nothing is added twice."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from configs.errors import ConfigError, DataError
from configs.flatten import flat
from configs.schema import DataConfig
from configs.schema.features import FeatureConfig
from configs.schema.item_features import ItemFeatureConfig
from data_pipeline.prepare.partition.scan import Source, keeps_event_type
from data_pipeline.prepare.provenance import ITEMS_FILE, Provenance, digest_of, provenance_of, saved_provenance
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.write.histories import columns_of
from data_pipeline.store.features import StoredFeature
from data_pipeline.store.file_sums import FileSum, check_sum, sum_of
from data_pipeline.store.manifest import HISTORIES, QUARANTINE, Manifest, item_table, load_manifest, paths_of
from data_pipeline.store.paths import AnyPath, parquet_source

_FIXED = ("event_types", "deduplicate", "min_user_events", "min_item_events")
"""Options that an append must share with the store; the others are of the files."""


@dataclass(kw_only=True, slots=True)
class ExistingStore:
    """A finished store that is appended to; ``raw_items`` by dense id; ``features`` keep their statistics."""

    place: AnyPath
    manifest: Manifest
    provenance: Provenance
    raw_items: pl.Series
    row_groups: list[tuple[AnyPath, int]]
    quarantine: dict[str, FileSum]
    """Files with the rows that were broken before, which the next version has as well."""

    @property
    def num_quarantined_parts(self) -> int:
        """The number of the next one."""
        numbers = [int(name.rpartition("part-")[2].removesuffix(".parquet")) for name in self.quarantine]
        return max(numbers, default=-1) + 1

    @property
    def features(self) -> dict[str, StoredFeature]:
        """What the store remembers of its features."""
        return self.manifest.features

    def id_type(self, key: str) -> pl.DataType:
        """Type of the store's raw ids of ``key``, user or item."""
        return self.raw_items.dtype if key == "item" else self.sample(0).dtype

    def rows(self, skip: int) -> Iterator[pl.DataFrame]:
        """The store's events, ids and features raw, after the first ``skip``, a row group at a time."""
        for path, row_groups in groupby(self.row_groups, key=lambda pair: pair[0]):
            file = pq.ParquetFile(parquet_source(path), page_checksum_verification=True)
            for _, row_group in row_groups:
                num_rows = _num_events_of(file, row_group)
                if skip >= num_rows:
                    skip -= num_rows
                    continue
                events = columns_of(file, row_group, list(self.features))
                user = events.users.gather(np.repeat(np.arange(len(events.users)), events.lengths))
                items = self.raw_items.gather(events.items)
                raw = {event_column(name): values for name, values in events.features.items()}
                yield pl.DataFrame({"user": user, "item": items, "timestamp": events.times, **raw})[skip:]
                skip = 0

    def sample(self, row: int) -> pl.Series:
        """Raw users of the row group at about ``row`` of the store's events."""
        path, row_group = self.row_groups[row * len(self.row_groups) // max(self.manifest.num_events, 1)]
        users = (
            pq.ParquetFile(parquet_source(path), page_checksum_verification=True)
            .read_row_group(row_group, columns=["raw_user"])
            .column("raw_user")
        )
        return pl.Series(users.combine_chunks())

    def source(self) -> Source:
        """The store as the first source of a scan."""
        return Source(num_rows=self.manifest.num_events, batches=self.rows, sample=self.sample)


def open_existing(store: AnyPath, config: DataConfig) -> ExistingStore:
    """The newest version of ``store``; ConfigError for options by which an append would not equal one prepare of all,
    DataError for files that are damaged."""
    if keeps_event_type(config):
        raise ConfigError(
            f"data.deduplicate=true does not go with data.append=true and data.columns.event_type="
            f"{config.columns.event_type}: data.store={store} does not hold the types of its events; choose one by "
            f"data.event_types, or prepare all files at once"
        )
    manifest = load_manifest(str(store))
    provenance = saved_provenance(str(store), manifest)
    if provenance is None or not provenance.digests:
        raise DataError(f"{store} does not say which files it was made of; prepare all files at once")
    now = provenance_of(config, []).options
    _refuse_k_core(store, provenance, now)
    for name in _FIXED:
        if provenance.options[name] != now[name]:
            raise ConfigError(
                f"data.{name}={now[name]}, but data.store={store} was made with {provenance.options[name]}; "
                f"use that, or prepare all files at once"
            )
    _refuse_other_features(store, provenance, now)
    if manifest.has_times != bool(config.columns.timestamp):
        holds = "times" if manifest.has_times else "the order of rows in place of times"
        raise ConfigError(
            f"data.columns.timestamp={config.columns.timestamp}, but data.store={store} holds {holds}; use the same "
            f"for the new files, or prepare all files at once"
        )
    table = item_table(str(store), manifest, ["raw_item"])
    parts = paths_of(str(store), manifest, HISTORIES)
    for path, expected in parts:
        check_sum(path, expected)
    root = len(store.parts)
    return ExistingStore(
        place=store,
        manifest=manifest,
        provenance=provenance,
        raw_items=pl.Series(table.column("raw_item").combine_chunks()),
        row_groups=[
            (part, k) for part, _ in parts for k in range(pq.read_metadata(parquet_source(part)).num_row_groups)
        ],
        quarantine={
            "/".join(path.parts[root:]): expected or sum_of(path)
            for path, expected in paths_of(str(store), manifest, QUARANTINE)
        },
    )


def _refuse_k_core(store: AnyPath, provenance: Provenance, now: dict[str, object]) -> None:
    """A store holds no events of the users and items that it left out, which new events may bring back."""
    for name in ("min_user_events", "min_item_events"):
        before, after = provenance.options[name], now[name]
        if before != 1:
            raise ConfigError(
                f"data.append=true: data.store={store} was made with data.{name}={before} and does not hold the "
                f"events that this left out, which new events may bring back; prepare all files together, the old "
                f"and the new, as data.log and without data.append: that makes the store's next version"
            )
        if after != 1:
            raise ConfigError(
                f"data.{name}={after} does not go with data.append=true: data.store={store} was made without it; "
                f"leave it out, or prepare all files together, the old and the new, without data.append"
            )


def with_options_of_store(config: DataConfig, manifest: Manifest) -> DataConfig:
    """``config`` with what the version of ``manifest`` remembers of its log, for whatever is as by default."""
    provenance = saved_provenance(config.store, manifest)
    return with_options_of(provenance, config, ()) if provenance else config


def with_options_of(provenance: Provenance, config: DataConfig, given: Collection[str]) -> DataConfig:
    """``config`` with what the store remembers, for whatever is not among the keys ``given`` and is as by default."""
    saved = dict(provenance.options)
    features, item_features = saved.pop("features", {}), saved.pop("item_features", {})
    filled = _filled(config, DataConfig(), saved, given, "")
    return replace(
        filled,
        features=_by_name(config.features, FeatureConfig, features, given, "features"),
        item_features=_by_name(config.item_features, ItemFeatureConfig, item_features, given, "item_features"),
    )


def _by_name(config: dict[str, Any], kind: type, saved: object, given: Collection[str], key: str) -> dict[str, Any]:
    """As :func:`_filled` for each of what a user gives names."""
    assert isinstance(saved, dict), "options hold features by name"
    known = {name: kind() for name in saved} | config
    return {name: _filled(each, kind(), saved.get(name, {}), given, f"{key}.{name}.") for name, each in known.items()}


def _filled(config: Any, default: Any, saved: dict[str, Any], given: Collection[str], prefix: str) -> Any:
    """``config`` with each field of ``saved`` that is neither given nor other than by default."""
    changes = {}
    for each in fields(config):
        name, value = each.name, getattr(config, each.name)
        if name not in saved:
            continue
        if is_dataclass(value):
            changes[name] = _filled(value, getattr(default, name), saved[name], given, f"{prefix}{name}.")
        elif value == getattr(default, name) and f"{prefix}{name}" not in given:
            changes[name] = type(value)(saved[name]) if isinstance(value, Enum) else saved[name]
    return replace(config, **changes)


def _refuse_other_features(store: AnyPath, provenance: Provenance, now: dict[str, object]) -> None:
    """Their columns may be named otherwise in new files, as all columns may."""
    for group in ("features", "item_features"):
        _refuse_other(group, store, provenance.options.get(group, {}), now.get(group, {}))


def _refuse_other(group: str, store: AnyPath, made: object, asked: object) -> None:
    before, after = _flat(made), _flat(asked)
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            told = {False: "is not set", True: f"is {after.get(key)!s}"}[key in after]
            was = f"with {before[key]}" if key in before else "without it"
            raise ConfigError(
                f"data.{group}.{key} {told}, but data.store={store} was made {was}; use that, or prepare all files "
                f"at once"
            )


def _flat(features: object) -> dict[str, object]:
    assert isinstance(features, dict), "options hold features by name"
    return {key: value for key, value in flat(features) if not key.endswith(".column")}


def new_files(
    existing: ExistingStore, config: DataConfig, paths: list[AnyPath], paths_of_tables: Collection[str] = ()
) -> tuple[list[AnyPath], list[tuple[AnyPath, str]]]:
    """The files of ``paths`` that the store does not hold, and those that it holds with the path they came by.

    A file is known by its bytes, whatever its name; one of ``paths_of_tables`` by its path, which is used once: two
    commits may write the same rows. DataError for a known path with other bytes.
    """
    path_of = dict(
        zip(existing.provenance.digests, (str(path) for path, _, _ in existing.provenance.files), strict=True)
    )
    known_files = {tuple(file) for file in existing.provenance.files}
    new, known = list[AnyPath](), list[tuple[AnyPath, str]]()
    for path, file in zip(paths, provenance_of(config, paths).files, strict=True):
        if tuple(file) in known_files:
            known.append((path, str(path)))
            continue
        digest = digest_of(path)
        if digest in path_of and str(path) not in paths_of_tables:
            known.append((path, path_of[digest]))
            continue
        if str(path) in path_of.values():
            raise DataError(
                f"{path} was added to data.store={existing.place} before, with other content; give new events in a "
                f"new file, or prepare all files at once"
            )
        path_of[digest] = str(path)
        new.append(path)
    return new, known


def joined(existing: ExistingStore, added: Provenance) -> Provenance:
    """The provenance of the store with the files of ``added``."""
    roots = {table["root"] for table in added.tables}
    of_items = {key: value for key, value in added.options.items() if key in ("items", "items_column", ITEMS_FILE)}
    return Provenance(
        options=existing.provenance.options | of_items,
        files=[*existing.provenance.files, *added.files],
        digests=[*existing.provenance.digests, *added.digests],
        num_appends=existing.provenance.num_appends + 1,
        tables=[*(old for old in existing.provenance.tables if old["root"] not in roots), *added.tables],
    )


def _num_events_of(file: pq.ParquetFile, row_group: int) -> int:
    """Events of a row group, from the footer; prepare leaves no user without one."""
    names = [file.schema.column(k).path for k in range(len(file.schema))]
    column = next(k for k, name in enumerate(names) if name.startswith("item."))
    return file.metadata.row_group(row_group).column(column).num_values
