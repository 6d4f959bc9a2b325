"""``python -m train.run_dir.fetch_overrides run_dir=URL``: what a run was started with, for a launcher that reads
no URLs."""

import sys
from collections.abc import Sequence

from configs.atomic_files import write_text
from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.run_dir import READER, local_run_dir
from configs.schema import RunConfig
from train.run_dir.identity import OVERRIDES, saved_overrides


def fetch(config: RunConfig) -> None:
    """Write the run's overrides to the folder in which this machine reads the run."""
    overrides = saved_overrides(config.run_dir)
    folder = local_run_dir(config, READER)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / OVERRIDES, "".join(f"{each}\n" for each in overrides))
    except OSError as error:
        raise ConfigError(f"scratch_dir={folder} cannot be written: {error.strerror}; choose another") from error


def main(overrides: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: fetch(load_config(overrides)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
