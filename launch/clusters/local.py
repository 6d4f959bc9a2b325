"""A run on this machine: the store is made where it is missing, the run folder is checked, the ranks are started."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from configs.command_time import began_or_now, set_began
from configs.errors import ConfigError, exit_code_of
from configs.load import load_config
from configs.machine import available_memory_gib, num_gpus, torch_is_built_for_gpus, usable_cores
from configs.memory import check_memory
from configs.nesting import refuse_nested
from configs.schema import RunConfig
from configs.url import is_url
from launch.command import run_module

THREADS_PER_CORE = 8
"""More than so many threads wait for each other instead of working."""


def train_locally(config: RunConfig, overrides: Sequence[str], *, max_restarts: int = 0) -> int:
    """Train ``config`` to its end on ``hardware.num_ranks`` processes of this machine; the exit code."""
    _check_machine(config)
    code = make_ready(config, overrides)
    if not code:
        check_memory(config, **_counts_of(config.data.store))
    return code or run_ranks("train", config, overrides, max_restarts=max_restarts)


def follow_locally(config: RunConfig, overrides: Sequence[str]) -> int:
    """Go through the windows of a log on ``hardware.num_ranks`` processes of this machine; the exit code."""
    _check_machine(config)
    return run_module("train.follow.preflight", overrides) or run_ranks("train.follow", config, overrides)


def _check_machine(config: RunConfig) -> None:
    """Refuse what does not fit this machine, and say what a run takes of it."""
    check_devices(config)
    check_memory(config)
    print(machine_line(config), file=sys.stderr, flush=True)


def machine_line(config: RunConfig) -> str:
    """What a run takes of this machine, in one line."""
    hardware = config.hardware
    ranks, threads = _plural(hardware.num_ranks, "rank"), _plural(hardware.num_threads, "thread")
    has = f"{_plural(usable_cores(), 'core')}, {available_memory_gib()[0]:.1f} GiB, {_plural(num_gpus(), 'GPU')}"
    return f"shardrec: {ranks} of {threads} on {hardware.device}; this machine has {has}"


def check_devices(config: RunConfig) -> None:
    """Raise :class:`ConfigError` for GPUs that this machine lacks, and for far more threads than cores."""
    hardware, gpus, cores = config.hardware, num_gpus(), usable_cores()
    if hardware.device == "cuda" and gpus < hardware.num_ranks:
        lack = "torch or fbgemm-gpu is a CPU build" if not torch_is_built_for_gpus() else f"{gpus} GPUs are here"
        raise ConfigError(
            f"hardware.device=cuda with hardware.num_ranks={hardware.num_ranks} needs a GPU for each rank, and "
            f"{lack}; set hardware=cpu, or see `shardrec doctor hardware=h100`"
        )
    if hardware.num_threads > THREADS_PER_CORE * cores:
        raise ConfigError(
            f"hardware.num_threads={hardware.num_threads} is more than {THREADS_PER_CORE} for each of the {cores} "
            f"cores of this machine; set it to {max(cores // hardware.num_ranks, 1)}, or to auto"
        )


def make_ready(config: RunConfig, overrides: Sequence[str]) -> int:
    """Make the store where there is none, or wait for who makes it, and refuse what would end the run at once.

    Returns 0 or the exit code.
    """
    refuse_nested({"run_dir": config.run_dir, "data.store": config.data.store, "data.log": config.data.log})
    began = began_or_now()
    if _must_prepare(config):
        prepare_began = time.time()
        code = run_module("data_pipeline.prepare", ["--wait", *overrides])
        if code:
            return code
        began += time.time() - prepare_began  # a store is no cost of the run
    set_began(began)
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


def _counts_of(store: str) -> dict[str, int]:
    """The rows of the tables that ``store`` makes; nothing where it is behind a URL or has no such counts."""
    manifest = Path(store) / "manifest.json"
    if is_url(store) or not manifest.is_file():
        return {}
    counts = json.loads(manifest.read_text(encoding="utf-8"))
    names = ("num_items", "num_users")
    return {name: counts[name] for name in names if isinstance(counts.get(name), int)}


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


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
