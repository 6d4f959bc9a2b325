"""What a prepare of a store that is there already has to do: nothing, add files, or make another version."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

import polars as pl

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline.prepare.append import ExistingStore, joined, new_files, open_existing, with_options_of
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.provenance import ITEMS_FILE, Provenance, provenance_of
from data_pipeline.prepare.read.log_files import LogFiles, find_log
from data_pipeline.prepare.read.tables import refuse_rewritten
from data_pipeline.store.manifest import MANIFEST, Manifest
from data_pipeline.store.paths import AnyPath, path_of


@dataclass(kw_only=True, slots=True)
class Plan:
    """One version to make: ``paths`` of the log, added to ``existing`` where there is one, with the options of
    ``config``, whose ``store`` is the local folder to make it in."""

    config: DataConfig
    version: int
    log: LogFiles = field(default_factory=LogFiles)
    existing: ExistingStore | None = None
    id_types: dict[str, pl.DataType] = field(default_factory=dict)
    """How ids of a new store are read; empty: as those of the log are."""
    check: Callable[[], None] = lambda: None
    """Raises when another process writes the store now; called before something is published."""

    @property
    def paths(self) -> list[AnyPath]:
        """The files of the log."""
        return self.log.paths

    @property
    def provenance(self) -> Provenance:
        """What the version will have been made from, without the digests of its new files."""
        added = provenance_of(self.config, self.paths, self.log.tables)
        return joined(self.existing, added) if self.existing else added


def plan_of(
    config: DataConfig, newest: Manifest, saved: Provenance | None, given: Collection[str], progress: ProgressReporter
) -> Plan | None:
    """What makes the version after ``newest``, which was made from ``saved``, of the store ``config.store``; None
    where that has everything already."""
    if config.append and saved is not None:
        config = with_options_of(saved, config, given)
    log = log_files_outside(config, progress)
    plan = Plan(config=config, version=newest.version + 1, log=log)
    if config.append:
        plan.existing = existing = open_existing(path_of(config.store), config)
        refuse_rewritten(existing.provenance.tables, log.tables, config.store)
        new, known = new_files(existing, config, log.paths, log.paths_of_tables())
        plan.log = replace(log, paths=new)
        for path, before in known:
            progress.say(f"{path} is in {existing.place} already, added as {before}: not added again")
        options = provenance_of(config, []).options
        if not plan.paths and saved is not None and options.get(ITEMS_FILE) != saved.options.get(ITEMS_FILE):
            progress.say(
                f"note: data.items={config.items} is not read: no file of the log is new, so that no version is "
                f"made; it is read with the next new file"
            )
        return plan if plan.paths else None
    if saved is not None and saved.is_same_build(plan.provenance):
        return None
    if saved is not None and saved.num_appends:
        raise DataError(
            f"data.store={config.store} holds the files of {saved.num_appends} appends, data.log={config.log} would "
            f"make a version without them; add to it by data.append=true, or name another data.store"
        )
    return plan


def log_files_outside(config: DataConfig, progress: ProgressReporter) -> LogFiles:
    """The log's files; :class:`ConfigError` where one of them is a file of the store."""
    store, place = path_of(config.store), path_of(config.log)
    if config.log and store.parts[: len(place.parts)] == place.parts and (store / MANIFEST).is_file():
        raise ConfigError(
            f"data.log={config.log} names {store / MANIFEST}, which is a file of data.store={store}; name the log "
            f"alone"
        )
    log = find_log(config.log, config.source, config.columns)
    for line in log.lines():
        progress.say(line)
    for path in log.paths:
        if path.parts[: len(store.parts)] == store.parts:
            raise ConfigError(
                f"data.log={config.log} names {path}, which is a file of data.store={store}; name the log alone"
            )
    return log
