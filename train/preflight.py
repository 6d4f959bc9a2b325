"""``python -m train.preflight key=value ...``: what would end a run at once, found before any rank is started.

Without torch: it takes a moment, and torchrun's own traceback does not bury the message.
"""

import sys
from collections.abc import Sequence

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.schema import RunConfig
from data_pipeline.store.features import chosen_features
from data_pipeline.store.manifest import load_manifest
from train.run_dir.identity import open_run_folder
from train.run_dir.remote_copy import remote_run_of
from train.run_dir.store_check import refuse_other_origin


def check(config: RunConfig, overrides: Sequence[str]) -> None:
    """Raise :class:`ConfigError` or :class:`DataError` for a store that cannot be read, was made of another log or
    with other options than the user gives, or lacks a feature of the model, a run folder of another run and one that
    cannot be written."""
    if not config.data.store:
        raise ConfigError("data.store is empty; set it to a store that `shardrec prepare` made")
    manifest = load_manifest(config.data.store)
    refuse_other_origin(config, overrides)
    chosen_features(config.data.store, manifest.features, config.model.event_features)
    remote = remote_run_of(config)
    if remote is None:
        open_run_folder(config, overrides, manifest.fingerprint)
    else:
        remote.fetch_records()
        open_run_folder(config, overrides, manifest.fingerprint)
        remote.send_records()  # finds here what the store does not let one write


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: check(load_config(overrides), overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
