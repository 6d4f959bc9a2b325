"""``python -m train.preflight key=value ...``: what would end a run at once, found before any rank is started.

Without torch: it takes a moment, and torchrun's own traceback does not bury the message.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config, variants_of
from configs.nesting import refuse_nested
from configs.paths import refuse_unwritable
from configs.process_exit import exit_at_once
from configs.run_dir import describe_run_dir, local_run_dir
from configs.schema import MSEConfig, RunConfig
from configs.url import is_url
from data_pipeline.store.features import chosen_features
from data_pipeline.store.item_content import chosen_content
from data_pipeline.store.labels import refuse_label
from data_pipeline.store.lease import refuse_if_written
from data_pipeline.store.manifest import identity_digests
from data_pipeline.store.paths import path_of
from train.evaluation.groups import refuse_unknown_groups
from train.run_dir.identity import IDENTITY, refuse_other_run
from train.run_dir.known_ids import refuse_unfit
from train.run_dir.store_check import note_grown_log, refuse_other_origin
from train.run_dir.store_version import manifest_of_run, note_newer_version


def check(config: RunConfig, overrides: Sequence[str]) -> None:
    """Raise :class:`ConfigError` or :class:`DataError` for a store that cannot be read, was made of another log or
    with other options than the user gives, or lacks a feature of the model or of ``evaluation.groups``, a run folder
    of another run and one that cannot be written. Changes nothing: the run may be under way, or be waiting to be
    started again."""
    if not config.data.store:
        raise ConfigError("data.store is empty; set it to a store that `shardrec prepare` made")
    refuse_nested({"run_dir": config.run_dir, "data.store": config.data.store, "data.log": config.data.log})
    manifest = manifest_of_run(config, path_of(config.run_dir))
    refuse_other_origin(config, overrides, manifest)
    if not (path_of(config.run_dir) / IDENTITY).is_file():  # a run that has begun asks the other one no more
        refuse_unfit(config)
    chosen_features(config.data.store, manifest.features, config.model.event_features)
    chosen_content(config.data.store, manifest.item_content, config.model.item_features)
    if isinstance(config.loss, MSEConfig):
        is_probability = config.model.is_probability
        refuse_label(config.data.store, manifest.features, config.label, is_probability=is_probability)
    if config.model.reads_time and not manifest.has_times:
        raise ConfigError(
            f"model={variants_of(config)['model']} reads the times of the events, and data.store={config.data.store} "
            f"was made of a log without times (data.columns.timestamp is empty); set model.time=none, or choose "
            f"another model"
        )
    refuse_unknown_groups(config, manifest)
    refuse_unwritable(describe_run_dir(config), local_run_dir(config), "choose another")
    if not is_url(config.run_dir):
        refuse_if_written(Path(config.run_dir), f"run_dir={config.run_dir}")
    refuse_other_run(path_of(config.run_dir), config, identity_digests(manifest))
    for line in (note_grown_log(config, overrides), note_newer_version(config, manifest)):
        if line:
            print(line, flush=True)


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: check(load_config(overrides), overrides))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
