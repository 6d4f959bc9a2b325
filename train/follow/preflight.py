"""``python -m train.follow.preflight key=value ...``: what would end a follow at once, before ranks are started.

Without torch: it takes a moment, and the message is there once instead of once a rank.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.atomic_files import read_json
from configs.errors import DataError, exit_code_of
from configs.nesting import refuse_nested
from configs.process_exit import exit_at_once
from configs.schema import RunConfig
from data_pipeline.prepare.provenance import provenance_of
from data_pipeline.prepare.read.log_files import find_log
from data_pipeline.prepare.windows import CUT, Cut
from data_pipeline.store.lease import refuse_if_written
from train.follow.folder import refuse_other_follow
from train.follow.journey import LOG, followed


def check(config: RunConfig) -> None:
    """Raise :class:`ConfigError` or :class:`DataError` for a log or a folder that cannot be used. Changes nothing."""
    refuse_nested({"run_dir": config.run_dir, "data.log": config.data.log, "data.spill_dir": config.data.spill_dir})
    refuse_other_follow(config)
    refuse_if_written(Path(config.run_dir), f"run_dir={config.run_dir}")
    cut = Path(config.run_dir) / LOG / CUT
    if not cut.is_file():
        find_log(config.data.log, config.data.source, config.data.columns)
    elif _has_changed(config, Cut(**read_json(cut))):
        print(
            f"note: data.log={config.data.log} has changed since it was cut; this follows the log as it was then, a "
            f"new run_dir follows what is there now",
            flush=True,
        )


def _has_changed(config: RunConfig, cut: Cut) -> bool:
    try:
        log = find_log(config.data.log, config.data.source, config.data.columns)
        return provenance_of(config.data, log.paths).files != cut.files
    except DataError:  # it is gone, and not needed any more
        return True


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: check(followed(overrides)))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
