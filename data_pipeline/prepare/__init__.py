"""Raw logs into a store: typed, cleaned, ordered, counted, fingerprinted, and never half-written."""

from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from configs.engine import Engine
from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline.files import ObjectPath, Place, place_of
from data_pipeline.manifest import FORMAT_VERSION, Manifest, load_manifest, save_manifest
from data_pipeline.prepare.append import Base, base_of, joined, new_files
from data_pipeline.prepare.engine import ENGINE, Made, run_stages
from data_pipeline.prepare.fetch import local_text
from data_pipeline.prepare.origin import Origin, digests_of, origin_of, save_origin, saved_origin
from data_pipeline.prepare.progress import Progress
from data_pipeline.prepare.scan import log_sources
from data_pipeline.prepare.send import made_there
from data_pipeline.prepare.sources import LogFile, column_names, find_log_files, id_type, open_log
from data_pipeline.prepare.workspace import State, Workspace, is_store, put_back, remove_leftovers, workspace_of


def prepare(config: DataConfig, progress: Progress | None = None) -> Manifest:
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
    progress, store = progress or Progress(), place_of(config.store)
    if isinstance(store, ObjectPath):
        return made_there(config, lambda local: prepare(local, progress), progress)
    config, paths = replace(config, store=str(store)), find_log_files(config.log, config.source)
    put_back(store)
    if config.append and is_store(store):
        return _append(config, base_of(store, config), paths, progress)
    saved = saved_origin(store)
    if saved is not None and saved.made_the_same(origin_of(config, paths)):
        remove_leftovers(store, config.spill_dir)
        return load_manifest(config.store)
    if saved is not None and saved.num_appends:
        raise DataError(
            f"data.store={store} holds the files of {saved.num_appends} appends, data.log={config.log} would make it "
            f"anew without them; add to it by data.append=true, or remove it first"
        )
    return _make(config, None, paths, progress)


def _append(config: DataConfig, base: Base, paths: list[Place], progress: Progress) -> Manifest:
    new, known = new_files(base, config, paths)
    for path, before in known:
        progress.say(f"{path} is in {base.folder} already, added as {before}: not added again")
    if not new:
        remove_leftovers(base.folder, config.spill_dir)
    return _make(config, base, new, progress) if new else base.manifest


def _make(config: DataConfig, base: Base | None, paths: list[Place], progress: Progress) -> Manifest:
    with local_text(paths, config, progress) as readable:
        files = open_log(readable, config.columns, config.source, config.features)
        for file, path in zip(files, paths, strict=True):
            file.name = str(path)
        if config.engine is Engine.SPARK:
            return _made_on_spark(config, files, origin_of(config, paths), progress)
        return _made_of(files, config, base, paths, progress)


def _made_of(
    files: list[LogFile], config: DataConfig, base: Base | None, paths: list[Place], progress: Progress
) -> Manifest:
    """The store of ``files``, which are ``paths`` opened."""
    id_types = _id_types(config, base, files)
    origin = origin_of(config, paths)
    started_from = {**asdict(origin), "base": asdict(base.origin) if base else None, "engine": ENGINE}
    with workspace_of(Path(config.store), config.spill_dir, started_from) as work, digests_of(paths) as digests:
        first_part = _copy_quarantine(base, work.store) if base else 0
        sources = log_sources(files, config, id_types, work.store / "quarantine", first_part)
        known = base.raw_items if base else pl.Series(dtype=id_types["item"])
        sources = [base.source(), *sources] if base else sources
        made = run_stages(sources, known, config, work, progress, base.features if base else None)
        origin.digests = [digest.result() for digest in digests]
        _refuse_changed_objects(config, origin, paths)
        return _finished(made, work, base, joined(base, origin) if base else origin)


def _made_on_spark(config: DataConfig, files: list[LogFile], origin: Origin, progress: Progress) -> Manifest:
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
        told = {str(file.path): row for file, row in zip(files, found, strict=True)}
        id_types = {
            key: id_type(files, names[key], key, is_integer_text=partial(_answer_of, told, key))
            for key in ("user", "item")
        }
        with workspace_of(Path(config.store), config.spill_dir, {**asdict(origin), "engine": ENGINE}) as work:
            origin.digests = [str(row["digest"]) for row in found]
            return _finished(run_on_spark(session, files, config, id_types, work, progress), work, None, origin)


def _answer_of(told: dict[str, dict[str, Any]], key: str, file: LogFile, name: str) -> bool | None:
    """What a survey has found of the ids of ``key``, in column ``name`` of ``file``."""
    answer = told[str(file.path)][key]
    assert answer is None or isinstance(answer, bool), f"column {name} was looked at"
    return answer


def _refuse_spark_of_urls(config: DataConfig) -> None:
    """Spark's tasks open files by path; a bucket that is mounted on every machine has paths."""
    for key, value in (("data.log", config.log), ("data.store", config.store)):
        if isinstance(place_of(value), ObjectPath):
            raise ConfigError(f"{key}={value}: data.engine=spark takes paths that every machine sees; mount it")


def _refuse_changed_objects(config: DataConfig, origin: Origin, paths: list[Place]) -> None:
    """An object is read by many requests: one that is replaced in between would be read half old and half new."""
    objects = [path for path in paths if isinstance(path, ObjectPath)]
    before = {str(file[0]): file for file in origin.files}
    for now in origin_of(config, objects).files:
        if now != before[str(now[0])]:
            raise DataError(f"{now[0]} was changed while it was read; start the same command again")


def _finished(made: Made, work: Workspace, base: Base | None, origin: Origin) -> Manifest:
    """The manifest and the origin of what was made, saved beside it."""
    manifest = _manifest(made, work.state, base)
    _check_nothing_is_lost(manifest)
    save_manifest(str(work.store), manifest)
    save_origin(work.store, origin)
    return manifest


def _id_types(config: DataConfig, base: Base | None, files: list[LogFile]) -> dict[str, pl.DataType]:
    """How ids are read: as in the store that is appended to, where there is one."""
    names = column_names(config.columns)
    found = {key: id_type(files, names[key], key) for key in ("user", "item")}
    for key in found if base else ():
        assert base is not None, "the loop is empty without a store"
        wanted = base.id_type(key)
        if found[key] != wanted and wanted == pl.String and all(file.is_text for file in files):
            found[key] = wanted
        if found[key] != wanted:
            raise DataError(
                f"column {names[key]!r} (data.columns.{key}) of data.log={config.log} holds {found[key]}, "
                f"data.store={base.folder} holds {wanted}; write the ids as one type, or prepare all files at once"
            )
    return found


def _copy_quarantine(base: Base, store: Path) -> int:
    """Copy the broken rows that the store has kept; returns the number of the next part."""
    parts = sorted((base.folder / "quarantine").glob("part-*.parquet"))
    for part in parts:
        target = store / "quarantine" / part.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(part.read_bytes())
    return int(parts[-1].stem.removeprefix("part-")) + 1 if parts else 0


def _manifest(made: Made, state: State, base: Base | None) -> Manifest:
    items, histories, before = made.items, made.histories, base.manifest if base else None
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
        columns=["item", "timestamp", *made.features],
        engine=made.engine,
        rows_read=rows_read,
        rows_used=histories.num_events,
        rows_filtered=dict(filtered),
        rows_quarantined={reason: quarantined[reason] for reason in sorted(quarantined)},
        num_time_ties=histories.num_time_ties,
        longest_history=histories.longest_history,
        fingerprint=histories.fingerprint,
        features=made.features,
    )


def _check_nothing_is_lost(manifest: Manifest) -> None:
    accounted = manifest.rows_used + sum(manifest.rows_filtered.values()) + sum(manifest.rows_quarantined.values())
    assert manifest.rows_read == accounted, f"every row read must be accounted for: {manifest}"
