"""A run on this machine: the store is made where it is missing, the run folder is checked, the ranks are started."""

import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import exit_code_of
from configs.load import load_config
from configs.schema import RunConfig
from configs.url import is_url
from launch.command import run_module


def train_locally(config: RunConfig, overrides: Sequence[str], *, max_restarts: int = 0) -> int:
    """Train ``config`` to its end on ``hardware.num_ranks`` processes of this machine; the exit code."""
    return make_ready(config, overrides) or run_ranks("train", config, overrides, max_restarts=max_restarts)


def make_ready(config: RunConfig, overrides: Sequence[str]) -> int:
    """Make the store where there is none, and refuse what would end the run at once; 0 or the exit code."""
    if _must_prepare(config):
        code = run_module("data_pipeline.prepare", overrides)
        if code:
            return code
    return run_module("train.preflight", overrides)


def run_ranks(module: str, config: RunConfig, overrides: Sequence[str], *, max_restarts: int = 0) -> int:
    """Run ``module`` on ``hardware.num_ranks`` processes of this machine; the exit code."""
    num_ranks, num_threads = config.hardware.num_ranks, config.hardware.num_threads
    is_training = module == "train"
    if num_ranks == 1 and max_restarts == 0:
        return run_module(module, overrides, num_threads=num_threads, is_training=is_training)
    flags = [f"--ranks={num_ranks}", *([f"--max-restarts={max_restarts}"] if max_restarts else [])]
    arguments = [*flags, module, *overrides]
    return run_module("train.supervision.elastic_agent", arguments, num_threads=num_threads, is_training=is_training)


def _must_prepare(config: RunConfig) -> bool:
    """Whether there is no store yet; a synthetic log is looked at again, since its choices may have changed.

    A store behind a URL is made by ``shardrec prepare`` alone: the launcher has nothing to look there with.
    """
    data = config.data
    if is_url(data.store):
        return False
    is_missing = not (Path(data.store) / "manifest.json").exists()
    return data.synthetic.num_users > 0 or (bool(data.log) and is_missing)


def main(overrides: Sequence[str]) -> int:
    """``python -m launch.clusters.local key=value ...``: make ready alone, as a job does on its first node."""
    return exit_code_of(lambda: make_ready(load_config(overrides), overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
