"""``python -m train.preflight key=value ...``: what would end a run at once, found before any rank is started.

Without torch: it takes a moment, and torchrun's own traceback does not bury the message.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.schema import RunConfig
from data_pipeline.manifest import load_manifest
from train.run_folder import open_run_folder


def check(config: RunConfig, overrides: Sequence[str]) -> None:
    """Raise :class:`ConfigError` or :class:`DataError` for a store that cannot be read, a run folder of another run
    and one that cannot be written."""
    if not config.data.store:
        raise ConfigError("data.store is empty; set it to a store that `shardrec prepare` made")
    manifest = load_manifest(config.data.store)
    _refuse_other_log(config, overrides)
    open_run_folder(config, overrides, manifest.fingerprint)


def _refuse_other_log(config: RunConfig, overrides: Sequence[str]) -> None:
    """Refuse a store that was made from another log than the one that the user named."""
    path = Path(config.data.store) / "prepared_from.json"
    if not path.is_file() or not config.data.log or not any(key.startswith("data.log=") for key in overrides):
        return
    log = json.loads(path.read_text())["options"]["log"]
    if Path(log).resolve() != Path(config.data.log).resolve():
        raise ConfigError(
            f"data.store={config.data.store} was made from {log}, not from data.log={config.data.log}; "
            f"choose another data.store, or make it anew with `shardrec prepare`"
        )


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: check(load_config(overrides), overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
