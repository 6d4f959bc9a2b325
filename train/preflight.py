"""``python -m train.preflight key=value ...``: what would end a run at once, found before any rank is started.

Without torch: it takes a moment, and torchrun's own traceback does not bury the message.
"""

import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.schema import RunConfig
from configs.url import is_url
from data_pipeline.features import chosen_features
from data_pipeline.files import place_of
from data_pipeline.manifest import load_manifest
from train.remote_run import remote_run_of
from train.run_folder import open_run_folder


def check(config: RunConfig, overrides: Sequence[str]) -> None:
    """Raise :class:`ConfigError` or :class:`DataError` for a store that cannot be read or lacks a feature of the
    model, a run folder of another run and one that cannot be written."""
    if not config.data.store:
        raise ConfigError("data.store is empty; set it to a store that `shardrec prepare` made")
    manifest = load_manifest(config.data.store)
    _refuse_other_log(config, overrides)
    chosen_features(config.data.store, manifest.features, config.model.event_features)
    remote = remote_run_of(config)
    if remote is None:
        open_run_folder(config, overrides, manifest.fingerprint)
    else:
        remote.fetch_records()
        open_run_folder(config, overrides, manifest.fingerprint)
        remote.send_records()  # finds here what the store does not let one write


def _refuse_other_log(config: RunConfig, overrides: Sequence[str]) -> None:
    """Refuse a store that was made from another log than the one that the user named."""
    path, log = place_of(config.data.store) / "prepared_from.json", config.data.log
    if not log or not any(key.startswith("data.log=") for key in overrides) or not path.is_file():
        return
    files = [str(file) for file, _, _ in json.loads(path.read_text())["files"]]
    if not any(_is_of(file, log) for file in files):
        raise ConfigError(
            f"data.store={config.data.store} was made from {', '.join(files[:3])}, not from data.log={log}; "
            f"choose another data.store, or make it anew with `shardrec prepare`"
        )


def _is_of(file: str, log: str) -> bool:
    """Whether ``file`` is the log, lies below it or fits it as a glob; paths may be written differently."""
    if not is_url(log):
        file, log = str(Path(file).resolve()), str(Path(log).resolve())
    return file == log or file.startswith(f"{log.rstrip('/')}/") or fnmatchcase(file, log.replace("**/", "*"))


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: check(load_config(overrides), overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
