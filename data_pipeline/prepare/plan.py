"""What a prepare of a store that is there already has to do: nothing, add files, or make another version."""

from collections.abc import Collection
from dataclasses import dataclass, field

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline.prepare.append import ExistingStore, joined, new_files, open_existing, with_options_of
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.provenance import Provenance, provenance_of
from data_pipeline.prepare.read.sources import find_log_files
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.paths import AnyPath, path_of


@dataclass(kw_only=True, slots=True)
class Plan:
    """One version to make: ``paths`` of the log, added to ``existing`` where there is one, with the options of
    ``config``, whose ``store`` is the local folder to make it in."""

    config: DataConfig
    version: int
    paths: list[AnyPath] = field(default_factory=list)
    existing: ExistingStore | None = None

    @property
    def provenance(self) -> Provenance:
        """What the version will have been made from, without the digests of its new files."""
        added = provenance_of(self.config, self.paths)
        return joined(self.existing, added) if self.existing else added


def plan_of(
    config: DataConfig, newest: Manifest, saved: Provenance | None, given: Collection[str], progress: ProgressReporter
) -> Plan | None:
    """What makes the version after ``newest``, which was made from ``saved``, of the store ``config.store``; None
    where that has everything already."""
    if config.append and saved is not None:
        config = with_options_of(saved, config, given)
    paths = log_files_outside(config)
    plan = Plan(config=config, version=newest.version + 1, paths=paths)
    if config.append:
        plan.existing = existing = open_existing(path_of(config.store), config)
        plan.paths, known = new_files(existing, config, paths)
        for path, before in known:
            progress.say(f"{path} is in {existing.place} already, added as {before}: not added again")
        return plan if plan.paths else None
    if saved is not None and saved.is_same_build(plan.provenance):
        return None
    if saved is not None and saved.num_appends:
        raise DataError(
            f"data.store={config.store} holds the files of {saved.num_appends} appends, data.log={config.log} would "
            f"make a version without them; add to it by data.append=true, or name another data.store"
        )
    return plan


def log_files_outside(config: DataConfig) -> list[AnyPath]:
    """The log's files; :class:`ConfigError` where one of them is a file of the store."""
    paths = find_log_files(config.log, config.source)
    store = path_of(config.store)
    for path in paths:
        if path.parts[: len(store.parts)] == store.parts:
            raise ConfigError(
                f"data.log={config.log} names {path}, which is a file of data.store={store}; name the log alone"
            )
    return paths
