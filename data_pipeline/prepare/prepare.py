"""Raw logs into a store: typed, cleaned, ordered, counted, fingerprinted, and never half-written."""

import json
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from configs.schema.data import Engine
from configs.schema.source import TimeUnit
from data_pipeline.prepare.append import ExistingStore, joined, new_files, open_existing
from data_pipeline.prepare.local_engine import ENGINE, PreparedStore, run_stages
from data_pipeline.prepare.partition.scan import log_sources
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.provenance import Provenance, digests_of, provenance_of, save_provenance, saved_provenance
from data_pipeline.prepare.read.fetch import local_text
from data_pipeline.prepare.read.id_values import id_type, text_among_ids
from data_pipeline.prepare.read.row_numbers import number_rows
from data_pipeline.prepare.read.sources import LogFile, column_names, find_log_files, open_log
from data_pipeline.prepare.read.time_units import TimeCounts, settle_times
from data_pipeline.prepare.spellings import tell_of_spellings
from data_pipeline.prepare.upload import prepare_and_upload
from data_pipeline.prepare.workspace import State, Workspace, is_store, put_back, remove_leftovers, workspace_of
from data_pipeline.store.manifest import FORMAT_VERSION, Manifest, load_manifest, save_manifest
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of


def prepare(config: DataConfig, progress: ProgressReporter | None = None) -> Manifest:
    """Make ``config.store`` from ``config.log``, or with ``config.append`` add the files of it that are new there.

    A finished store from the same files and options is kept as it is; a killed prepare goes on. Raises ``DataError``
    for a log that cannot be used and a folder that cannot be written, and then leaves nothing behind and an older
    store untouched; ``ConfigError`` for options that do not fit together.
    """
    if not config.store:
        raise ConfigError("data.store is empty; set it to the folder that the store shall be written to")
    if config.event_types and not config.columns.event_type:
        raise ConfigError(
            f"data.event_types={config.event_types} needs data.columns.event_type: name the column that holds them"
        )
    if config.engine is Engine.SPARK:
        _refuse_spark_of_urls(config)
    progress, store = progress or ProgressReporter(), path_of(config.store)
    if isinstance(store, ObjectPath):
        return prepare_and_upload(config, lambda local: prepare(local, progress), progress)
    config, paths = replace(config, store=str(store)), find_log_files(config.log, config.source)
    put_back(store)
    if config.append and is_store(store):
        return _append(config, open_existing(store, config), paths, progress)
    saved = saved_provenance(store)
    if saved is not None and saved.is_same_build(provenance_of(config, paths)):
        remove_leftovers(store, config.spill_dir)
        return load_manifest(config.store)
    if saved is not None and saved.num_appends:
        raise DataError(
            f"data.store={store} holds the files of {saved.num_appends} appends, data.log={config.log} would make it "
            f"anew without them; add to it by data.append=true, or remove it first"
        )
    return _make(config, None, paths, progress)


def _append(
    config: DataConfig, existing: ExistingStore, paths: list[AnyPath], progress: ProgressReporter
) -> Manifest:
    new, known = new_files(existing, config, paths)
    for path, before in known:
        progress.say(f"{path} is in {existing.folder} already, added as {before}: not added again")
    if not new:
        remove_leftovers(existing.folder, config.spill_dir)
    return _make(config, existing, new, progress) if new else existing.manifest


def _make(
    config: DataConfig, existing: ExistingStore | None, paths: list[AnyPath], progress: ProgressReporter
) -> Manifest:
    with local_text(paths, config, progress) as readable:
        files = open_log(readable, config.columns, config.source, config.features)
        for file, path in zip(files, paths, strict=True):
            file.name = str(path)
        _tell_of_empty_files(files, progress)
        if not config.columns.timestamp:
            number_rows(files, existing.manifest.rows_read if existing else 0)
        if config.engine is Engine.SPARK:
            return _prepare_on_spark(config, files, provenance_of(config, paths), progress)
        fallback = TimeUnit(existing.manifest.time_unit) if existing and existing.manifest.time_unit else TimeUnit.MS
        files, settled = settle_times(files, config, fallback, progress)
        return _prepare_locally(files, settled, existing, paths, provenance_of(config, paths), progress)


def _tell_of_empty_files(files: list[LogFile], progress: ProgressReporter) -> None:
    empty = [file.name for file in files if file.is_empty]
    if empty and len(empty) < len(files):
        shown = ", ".join(empty[:5]) + (" ..." if empty[5:] else "")
        progress.say(f"note: {len(empty):,} of {len(files):,} files hold no row and are left out: {shown}")


def _prepare_locally(
    files: list[LogFile],
    config: DataConfig,
    existing: ExistingStore | None,
    paths: list[AnyPath],
    provenance: Provenance,
    progress: ProgressReporter,
) -> Manifest:
    """The store of ``files``, which are ``paths`` opened."""
    id_types = _id_types(config, existing, files)
    started_from = {
        **asdict(provenance),
        "time_unit": config.source.time_unit,
        "existing": asdict(existing.provenance) if existing else None,
        "engine": ENGINE,
        "spill": "nanoseconds",
    }
    with workspace_of(Path(config.store), config.spill_dir, started_from) as work, digests_of(paths) as digests:
        first_part = _copy_quarantine(existing, work.store) if existing else 0
        sources = log_sources(files, config, id_types, work.store / "quarantine", first_part)
        known = existing.raw_items if existing else pl.Series(dtype=id_types["item"])
        sources = [existing.source(), *sources] if existing else sources
        prepared = run_stages(sources, known, config, work, progress, existing.features if existing else None)
        provenance.digests = [digest.result() for digest in digests]
        _refuse_changed_objects(config, provenance, paths)
        prepared.time_unit = config.source.time_unit.value if config.columns.timestamp else ""
        made_from = joined(existing, provenance) if existing else provenance
        tell_of_spellings(work.store, config, progress)
        return _finished(config, prepared, work, existing, made_from)


def _prepare_on_spark(
    config: DataConfig, files: list[LogFile], provenance: Provenance, progress: ProgressReporter
) -> Manifest:
    missing = [name for name in ("pyspark", "pandas") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"data.engine=spark needs {' and '.join(missing)}: pip install 'shardrec[spark]', "
            f"or set data.engine=embedded"
        )
    from data_pipeline.prepare.spark.engine import ENGINE, run_on_spark, survey  # an extra
    from data_pipeline.prepare.spark.session import session_of

    names = column_names(config.columns)
    with session_of(config) as session:
        found = survey(session, files, config)
        counts = [TimeCounts(**json.loads(row["times"])) for row in found]
        files, config = settle_times(files, config, TimeUnit.MS, progress, counts)
        told = {str(file.path): row for file, row in zip(files, found, strict=True)}
        id_types = {key: id_type(files, names[key], partial(_text_told, told, key)) for key in ("user", "item")}
        with workspace_of(Path(config.store), config.spill_dir, {**asdict(provenance), "engine": ENGINE}) as work:
            provenance.digests = [str(row["digest"]) for row in found]
            prepared = run_on_spark(session, files, config, id_types, work, progress)
            prepared.time_unit = config.source.time_unit.value if config.columns.timestamp else ""
            tell_of_spellings(work.store, config, progress)
            return _finished(config, prepared, work, None, provenance)


def _text_told(told: dict[str, dict[str, Any]], key: str, file: LogFile, name: str) -> str | None:
    """What a survey has found of the ids of ``key``, in column ``name`` of ``file``."""
    answer = told[str(file.path)][key]
    assert answer is None or isinstance(answer, str), f"column {name} was looked at"
    return answer


def _refuse_spark_of_urls(config: DataConfig) -> None:
    """Spark's tasks open files by path; a bucket that is mounted on every machine has paths."""
    for key, value in (("data.log", config.log), ("data.store", config.store)):
        if isinstance(path_of(value), ObjectPath):
            raise ConfigError(f"{key}={value}: data.engine=spark takes paths that every machine sees; mount it")


def _refuse_changed_objects(config: DataConfig, provenance: Provenance, paths: list[AnyPath]) -> None:
    """An object is read by many requests: one that is replaced in between would be read half old and half new."""
    objects = [path for path in paths if isinstance(path, ObjectPath)]
    before = {str(file[0]): file for file in provenance.files}
    for now in provenance_of(config, objects).files:
        if now != before[str(now[0])]:
            raise DataError(f"{now[0]} was changed while it was read; start the same command again")


def _finished(
    config: DataConfig,
    prepared: PreparedStore,
    work: Workspace,
    existing: ExistingStore | None,
    provenance: Provenance,
) -> Manifest:
    """The manifest and the provenance of what was made, saved beside it."""
    manifest = _manifest(prepared, work.state, existing)
    manifest.has_times = bool(config.columns.timestamp)
    _check_nothing_is_lost(manifest)
    save_manifest(str(work.store), manifest)
    save_provenance(work.store, provenance)
    return manifest


def _id_types(config: DataConfig, existing: ExistingStore | None, files: list[LogFile]) -> dict[str, pl.DataType]:
    """How ids are read: as in the store that is appended to, where there is one."""
    names = column_names(config.columns)
    if existing is None:
        return {key: id_type(files, names[key]) for key in ("user", "item")}
    found = {key: existing.id_type(key) for key in ("user", "item")}
    for key in (key for key in found if found[key] == pl.Int64):
        for file in files:
            if (text := text_among_ids(file, names[key])) is not None:
                raise DataError(
                    f"{file.name or file.path}: column {names[key]!r} (data.columns.{key}) holds {text!r}, and "
                    f"the ids in data.store={existing.folder} are whole numbers; mend it, or prepare all at once"
                )
    return found


def _copy_quarantine(existing: ExistingStore, store: Path) -> int:
    """Copy the broken rows that the store has kept; returns the number of the next part."""
    parts = sorted((existing.folder / "quarantine").glob("part-*.parquet"))
    for part in parts:
        target = store / "quarantine" / part.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(part.read_bytes())
    return int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0


def _manifest(prepared: PreparedStore, state: State, existing: ExistingStore | None) -> Manifest:
    items, histories, before = prepared.items, prepared.histories, existing.manifest if existing else None
    filtered, quarantined = Counter(state.rows_filtered), Counter(state.rows_quarantined)
    rows_read = state.rows_read
    if before is not None:
        rows_read += before.rows_read
        for counts, more in ((filtered, before.rows_filtered), (quarantined, before.rows_quarantined)):
            counts.update(more)
    return Manifest(
        format_version=FORMAT_VERSION,
        num_users=histories.num_users,
        num_items=len(items),
        num_events=histories.num_events,
        first_time_ms=int(items["first_time"].to_numpy().min()),
        last_time_ms=int(items["last_time"].to_numpy().max()),
        columns=["item", "timestamp", *prepared.features],
        engine=prepared.engine,
        rows_read=rows_read,
        rows_used=histories.num_events,
        rows_filtered=dict(filtered),
        rows_quarantined={reason: quarantined[reason] for reason in sorted(quarantined)},
        num_time_ties=histories.num_time_ties,
        longest_history=histories.longest_history,
        fingerprint=histories.fingerprint,
        features=prepared.features,
        time_unit=(before.time_unit if before is not None else "") or prepared.time_unit,
    )


def _check_nothing_is_lost(manifest: Manifest) -> None:
    accounted = manifest.rows_used + sum(manifest.rows_filtered.values()) + sum(manifest.rows_quarantined.values())
    assert manifest.rows_read == accounted, f"every row read must be accounted for: {manifest}"
