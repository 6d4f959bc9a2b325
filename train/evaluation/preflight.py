"""``python -m train.evaluation.preflight run_dir=R``: what would end an evaluation at once, before ranks are started.

Without torch: it takes a moment, and the message is there once instead of once a rank.
"""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.overrides import key_of
from configs.process_exit import exit_at_once
from configs.saved_run import place_overrides
from configs.schema import RunConfig, Split
from data_pipeline.store.manifest import Manifest, identity_digests, load_manifest
from data_pipeline.store.paths import path_of
from train.evaluation.groups import refuse_unknown_groups
from train.run_dir.identity import is_same_data, load_run_config, refuse_other_evaluation
from train.run_dir.known_ids import (
    TrainedRun,
    refuse_other_features,
    refuse_other_kind_of_ids,
    store_of_run,
    trained_run,
)
from train.run_dir.model_files import refuse_without_model
from train.run_dir.store_version import at_version, manifest_of_run

STORE, VERSION = "data.store", "data.version"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A run and the events that it is asked about: ``config`` names their store and version, ``manifest`` is its."""

    run: TrainedRun
    config: RunConfig
    manifest: Manifest
    source: tuple[str, Manifest] | None
    """The store and version whose dense ids are those of the model; None where they are the events of the run."""

    def of_model(self) -> tuple[RunConfig, Manifest]:
        """The run with the store whose dense ids are the model's, and the manifest of it; ``config`` itself where
        they are the events of the run."""
        if self.source is None:
            return self.config, self.manifest
        store, manifest = self.source
        of_model = replace(self.config, data=replace(self.config.data, store=store))
        return at_version(of_model, manifest.version), manifest


def evaluated_run(overrides: Sequence[str]) -> RunConfig:
    """The run in the ``run_dir`` of ``overrides``, with ``overrides`` on top; of a store that they name, and of which
    they name no version, the newest is meant.

    Raises :class:`ConfigError` as :func:`load_run_config` does.
    """
    typed = keys_of(overrides)
    newest = [f"{VERSION}=0"] if STORE in typed and VERSION not in typed else []
    return load_run_config(load_config(place_overrides(overrides)).run_dir, [*overrides, *newest])


def asked_events(config: RunConfig, typed: Collection[str] = ()) -> Evaluated:
    """What is asked of the run in ``config``'s ``run_dir``: about its own events, or where the ``typed`` keys name a
    store or a version, about those.

    Raises :class:`ConfigError`, which names the key, where the model cannot be asked about them.
    """
    run = trained_run("run_dir", config.run_dir, config.scratch_dir)
    if {STORE, VERSION} & set(typed):
        manifest = load_manifest(config.data.store, config.data.version)
    else:
        manifest = manifest_of_run(config, path_of(config.run_dir))
    config = at_version(config, manifest.version)
    if is_same_data(run.identity, identity_digests(manifest)):
        refuse_other_evaluation(config, identity_digests(manifest))
        return Evaluated(run, config, manifest, None)
    refuse_other_evaluation(config, {}, is_of_other_events=True)
    source = store_of_run(run, config.data.store)
    refuse_other_kind_of_ids(run, source, config.data.store, manifest)
    refuse_other_features(run, source[1], config.data.store, manifest)
    return Evaluated(run, config, manifest, source)


def evaluated(config: RunConfig, typed: Collection[str] = ()) -> Evaluated:
    """:func:`asked_events` of which some can be ranked; :class:`ConfigError` where none is held out, or where they
    cannot be grouped as ``evaluation.groups`` asks."""
    asked = asked_events(config, typed)
    if asked.source is None:
        _refuse_nothing_held_out(asked.config)
    else:
        _refuse_no_split(asked.config, asked.run)
    refuse_unknown_groups(asked.config, asked.manifest)
    return asked


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: _check(overrides))


def _check(overrides: Sequence[str]) -> None:
    config = evaluated_run(overrides)
    evaluated(config, keys_of(overrides))
    refuse_without_model(config)


def keys_of(overrides: Sequence[str]) -> set[str]:
    """The keys that a person has typed."""
    return {*map(key_of, overrides)}


def _refuse_nothing_held_out(config: RunConfig) -> None:
    if config.data.split is Split.NONE:
        raise ConfigError(
            f"run_dir={config.run_dir} was trained with data.split=none, on every event, so that none is left to "
            f"rank; train with another data.split to see how good such a model is, or name newer events by data.store"
        )


def _refuse_no_split(config: RunConfig, run: TrainedRun) -> None:
    if config.data.split is Split.NONE:
        raise ConfigError(
            f"{run.shown} was trained with data.split=none, which ranks nobody: say which events of "
            f"data.store={config.data.store} are ranked, by data.split=leave_one_out or data.split=global_time with "
            f"data.global_time_valid and data.global_time_test"
        )


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
