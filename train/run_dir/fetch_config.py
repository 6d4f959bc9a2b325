"""``python -m train.run_dir.fetch_config run_dir=URL``: the ``config.yaml`` of a run, for a launcher that reads no
URLs."""

import sys
from collections.abc import Sequence

from configs.atomic_files import write_text
from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.process_exit import exit_at_once
from configs.run_dir import READER, local_run_dir
from configs.saved_run import CONFIG, place_overrides
from configs.schema import RunConfig
from train.run_dir.identity import saved_yaml


def fetch(config: RunConfig) -> None:
    """Write the run's ``config.yaml`` to the folder in which this machine reads the run."""
    text = saved_yaml(config.run_dir)
    folder = local_run_dir(config, READER)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG, text)
    except OSError as error:
        raise ConfigError(f"scratch_dir={folder} cannot be written: {error.strerror}; choose another") from error


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: fetch(load_config(place_overrides(overrides))))


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
