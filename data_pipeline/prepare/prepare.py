"""Raw logs into a store: typed, cleaned, ordered, counted, fingerprinted, and never half-written."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from configs.errors import ConfigError, DataError
from configs.nesting import refuse_nested
from configs.schema import DataConfig
from configs.schema.data import Engine
from configs.schema.source import TimeUnit
from data_pipeline.prepare.append import ExistingStore, joined
from data_pipeline.prepare.item_content import check_items_file, write_item_content
from data_pipeline.prepare.local_engine import ENGINE, PreparedStore, run_stages
from data_pipeline.prepare.partition.scan import log_sources
from data_pipeline.prepare.plan import Plan, log_files_outside, plan_of
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.provenance import (
    Provenance,
    digests_of,
    note_of_copies,
    provenance_of,
    save_provenance,
    saved_provenance,
)
from data_pipeline.prepare.publish import finish_publication, is_store, next_version, publisher_of, sealed
from data_pipeline.prepare.read.fetch import local_text
from data_pipeline.prepare.read.id_values import id_type, text_among_ids
from data_pipeline.prepare.read.row_numbers import number_rows
from data_pipeline.prepare.read.sources import LogFile, column_names, open_log
from data_pipeline.prepare.read.time_units import TimeCounts, settle_times
from data_pipeline.prepare.spellings import tell_of_spellings
from data_pipeline.prepare.store_lease import writing_store
from data_pipeline.prepare.upload import prepare_and_upload
from data_pipeline.prepare.workspace import State, Workspace, remove_leftovers, workspace_of
from data_pipeline.prepare.write.fingerprint import feature_codes_digest, item_ids_digest
from data_pipeline.store.manifest import FORMAT_VERSION, Manifest, load_manifest
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of


def prepare(
    config: DataConfig,
    progress: ProgressReporter | None = None,
    given: Collection[str] = (),
    id_types: dict[str, pl.DataType] | None = None,
) -> Manifest:
    """Make ``config.store`` from ``config.log``, or with ``config.append`` add the files of it that are new there.

    Where a store is there already, the result is its next version, and all others stay as they are. A newest version
    from the same files and options is kept as it is; a killed prepare goes on. An append takes the options of the
    store, but for the keys below ``data`` that are ``given`` or differ from their defaults. ``id_types``: of users
    and items of a new store, where those of ``config.log`` do not decide: it is a part of a larger log.

    Raises ``DataError`` for a log that cannot be used and a folder that cannot be written, and then leaves nothing
    behind; ``ConfigError`` for options that do not fit together.
    """
    if not config.store:
        raise ConfigError("data.store is empty; set it to the folder that the store shall be written to")
    if config.event_types and not config.columns.event_type:
        raise ConfigError(
            f"data.event_types={config.event_types} needs data.columns.event_type: name the column that holds them"
        )
    if config.engine is Engine.SPARK:
        _refuse_spark_of_urls(config)
    refuse_nested({"data.store": config.store, "data.log": config.log, "data.spill_dir": config.spill_dir})
    progress, store = progress or ProgressReporter(), path_of(config.store)
    if isinstance(store, ObjectPath):
        return prepare_and_upload(config, given, _make, progress)
    store = store.resolve()  # behind a link it is made where the link leads
    while True:
        plan = _plan_at(store, config, given, progress)
        if plan is None:
            remove_leftovers(store, config.spill_dir)
            return load_manifest(str(store))
        plan.id_types = id_types or {}
        with writing_store(store, f"data.store={config.store}") as lease:
            if next_version(store) == plan.version:  # else another process has made one meanwhile
                plan.check = lease.check
                return _make(plan, progress)


def _plan_at(store: Path, config: DataConfig, given: Collection[str], progress: ProgressReporter) -> Plan | None:
    """What makes the next version; None where the newest one has everything already."""
    config = replace(config, store=str(store))
    finish_publication(store)
    if is_store(store):
        newest = load_manifest(str(store))
        plan = plan_of(config, newest, saved_provenance(str(store), newest), given, progress)
        if plan is not None:
            plan.version = next_version(store)
        return plan
    return Plan(config=config, version=next_version(store), log=log_files_outside(config, progress))


def _make(plan: Plan, progress: ProgressReporter) -> Manifest:
    config, paths, views = plan.config, plan.paths, [plan.log.view(path) for path in plan.paths]
    check_items_file(config)
    with local_text(paths, config, progress, views) as readable:
        files = open_log(readable, config.columns, config.source, config.features, views)
        for file, path in zip(files, paths, strict=True):
            file.name = str(path)
        _tell_of_empty_files(files, progress)
        if not config.columns.timestamp:
            number_rows(files, plan.existing.manifest.rows_read if plan.existing else 0)
        if notes := [f"note: {file.note}, such as in {file.name}" for file in files if file.note]:
            progress.say(notes[0])
        if config.engine is Engine.SPARK:
            return _prepare_on_spark(plan, files, progress)
        fallback = TimeUnit.MS
        if plan.existing is not None and plan.existing.manifest.time_unit:
            fallback = TimeUnit(plan.existing.manifest.time_unit)
        files, settled = settle_times(files, config, fallback, progress)
        return _prepare_locally(plan, files, settled, progress)


def _tell_of_empty_files(files: list[LogFile], progress: ProgressReporter) -> None:
    empty = [file.name for file in files if file.is_empty]
    if empty and len(empty) < len(files):
        shown = ", ".join(empty[:5]) + (" ..." if empty[5:] else "")
        progress.say(f"note: {len(empty):,} of {len(files):,} files hold no row and are left out: {shown}")


def _tell_of_copies(plan: Plan, provenance: Provenance, progress: ProgressReporter) -> None:
    if note := note_of_copies(provenance, plan.log.paths_of_tables()):
        progress.say(note)


def _prepare_locally(plan: Plan, files: list[LogFile], config: DataConfig, progress: ProgressReporter) -> Manifest:
    """The store of ``files``, which are the paths of ``plan`` opened, by its ``config`` with the times settled."""
    existing, provenance = plan.existing, provenance_of(plan.config, plan.paths, plan.log.tables)
    id_types = _id_types(config, existing, files, plan.id_types)
    started_from = {
        **asdict(provenance),
        "time_unit": config.source.time_unit,
        "existing": asdict(existing.provenance) if existing else None,
        "version": plan.version,
        "engine": ENGINE,
        "spill": "nanoseconds",
    }
    made = list[Manifest]()
    publish = publisher_of(Path(config.store), lambda: made[0], plan.check)
    with (
        workspace_of(Path(config.store), config.spill_dir, started_from, publish) as work,
        digests_of(plan.paths) as digests,
    ):
        first_part = existing.num_quarantined_parts if existing else 0
        sources = log_sources(files, config, id_types, work.store / "quarantine", first_part)
        known = existing.raw_items if existing else pl.Series(dtype=id_types["item"])
        sources = [existing.source(), *sources] if existing else sources
        prepared = run_stages(sources, known, config, work, progress, existing.features if existing else None)
        provenance.digests = [digest.result() for digest in digests]
        _tell_of_copies(plan, provenance, progress)
        _refuse_changed_objects(config, provenance, plan.paths)
        prepared.time_unit = config.source.time_unit.value if config.columns.timestamp else ""
        tell_of_spellings(work.store, config, progress)
        whole = joined(existing, provenance) if existing else provenance
        made.append(_finished(plan, prepared, work, whole, progress))
    return made[0]


def _prepare_on_spark(plan: Plan, files: list[LogFile], progress: ProgressReporter) -> Manifest:
    missing = [name for name in ("pyspark", "pandas") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"data.engine=spark needs {' and '.join(missing)}: pip install 'shardrec[spark]', "
            f"or set data.engine=embedded"
        )
    from data_pipeline.prepare.spark.engine import ENGINE, run_on_spark, survey  # an extra
    from data_pipeline.prepare.spark.session import session_of

    config, made = plan.config, list[Manifest]()
    names, provenance = column_names(config.columns), provenance_of(config, plan.paths)
    started_from = {**asdict(provenance), "version": plan.version, "engine": ENGINE}
    publish = publisher_of(Path(config.store), lambda: made[0], plan.check)
    with session_of(config) as session:
        found = survey(session, files, config)
        counts = [TimeCounts(**json.loads(row["times"])) for row in found]
        files, config = settle_times(files, config, TimeUnit.MS, progress, counts)
        told = {str(file.path): row for file, row in zip(files, found, strict=True)}
        id_types = {key: id_type(files, names[key], partial(_text_told, told, key)) for key in ("user", "item")}
        with workspace_of(Path(config.store), config.spill_dir, started_from, publish) as work:
            provenance.digests = [str(row["digest"]) for row in found]
            _tell_of_copies(plan, provenance, progress)
            prepared = run_on_spark(session, files, config, id_types, work, progress)
            prepared.time_unit = config.source.time_unit.value if config.columns.timestamp else ""
            tell_of_spellings(work.store, config, progress)
            made.append(_finished(plan, prepared, work, provenance, progress))
    return made[0]


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
    plan: Plan, prepared: PreparedStore, work: Workspace, provenance: Provenance, progress: ProgressReporter
) -> Manifest:
    """The manifest of what was made, with the sums of all its files; the provenance is saved as one of them."""
    manifest = _manifest(prepared, work.state, plan.existing)
    manifest.has_times = bool(plan.config.columns.timestamp)
    manifest.files_skipped = list(plan.log.skipped)
    tables = {each.root: each.version for each in plan.log.tables}
    manifest.tables = (plan.existing.manifest.tables if plan.existing else {}) | tables
    before = plan.existing.manifest.item_content if plan.existing else None
    manifest.item_content = write_item_content(plan.config, prepared.items["raw_item"], work.store, before, progress)
    _check_nothing_is_lost(manifest)
    save_provenance(work.store, provenance)
    return sealed(manifest, work.store, plan.version, plan.existing.quarantine if plan.existing else {})


def _id_types(
    config: DataConfig, existing: ExistingStore | None, files: list[LogFile], asked: dict[str, pl.DataType]
) -> dict[str, pl.DataType]:
    """How ids are read: as in the store that is appended to, where there is one, else as ``asked``."""
    names = column_names(config.columns)
    if existing is None and asked:
        return asked
    if existing is None:
        return {key: id_type(files, names[key]) for key in ("user", "item")}
    found = {key: existing.id_type(key) for key in ("user", "item")}
    for key in (key for key in found if found[key] == pl.Int64):
        for file in files:
            if (text := text_among_ids(file, names[key])) is not None:
                raise DataError(
                    f"{file.name or file.path}: column {names[key]!r} (data.columns.{key}) holds {text!r}, and "
                    f"the ids in data.store={existing.place} are whole numbers; fix it, or prepare all at once"
                )
    return found


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
        item_ids=item_ids_digest(items["raw_item"]),
        user_ids=histories.user_ids,
        feature_codes=feature_codes_digest(prepared.features),
    )


def _check_nothing_is_lost(manifest: Manifest) -> None:
    accounted = manifest.rows_used + sum(manifest.rows_filtered.values()) + sum(manifest.rows_quarantined.values())
    assert manifest.rows_read == accounted, f"every row read must be accounted for: {manifest}"
