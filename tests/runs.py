"""A whole run on the ranks of :func:`ranks.run_ranks`."""

from configs.load import load_config
from train.run import run


def run_here(overrides: list[str]) -> int:
    """Train ``overrides`` to the end on the process group that is there; the exit code."""
    return run(load_config(overrides), overrides)
