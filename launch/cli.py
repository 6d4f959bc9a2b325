"""``shardrec VERB key=value ...``: says what it will do, starts it, and returns its exit code."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import USAGE_EXIT_CODE, ConfigError, exit_code_of
from launch.command import run_module
from launch.help import HELP, VERB_HELP

if TYPE_CHECKING:
    from configs.schema import RunConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code of what it started, or 2 after one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0 if words else USAGE_EXIT_CODE
    verb, *overrides = words
    if verb in VERB_HELP and any(word in ("-h", "--help") for word in overrides):
        print(VERB_HELP[verb])
        return 0
    return exit_code_of(lambda: _verb_of(verb)(overrides))


def _verb_of(name: str) -> Callable[[list[str]], int]:
    verbs = {"config": _config, "prepare": _prepare, "inspect": _inspect, "train": _train}
    verbs |= {"evaluate": _evaluate, "bench": _bench}
    if name not in verbs:
        raise ConfigError(f"{name} is not a verb; use one of {', '.join(verbs)}")
    return verbs[name]


def _config(overrides: list[str]) -> int:
    from configs.load import load_config, resolved_yaml  # hydra takes longer to import than --help may take

    print(resolved_yaml(load_config(overrides)), end="")
    return 0


def _prepare(overrides: list[str]) -> int:
    _composed(overrides)
    return _start("data_pipeline.prepare", overrides)


def _inspect(words: list[str]) -> int:
    return _start("data_pipeline.inspect", words)


def _train(overrides: list[str]) -> int:
    config = _composed(overrides)
    if _must_prepare(config):
        code = _start("data_pipeline.prepare", overrides)
        if code:
            return code
    return _start("train.preflight", overrides) or _start("train", overrides, config)


def _evaluate(overrides: list[str]) -> int:
    saved = Path(_composed(overrides).run_dir) / "overrides.txt"
    if not saved.is_file():
        raise ConfigError(f"run_dir={saved.parent} holds no run; train it first")
    return _start("train.evaluate", overrides, _composed([*saved.read_text().splitlines(), *overrides]))


def _bench(overrides: list[str]) -> int:
    if not overrides or "=" in overrides[0]:
        raise ConfigError("bench needs the NAME of a benchmark first: shardrec bench NAME [key=value ...]")
    return _start("benchmarks", overrides)


def _composed(overrides: list[str]) -> "RunConfig":
    from configs.load import load_config

    return load_config(overrides)


def _must_prepare(config: "RunConfig") -> bool:
    """Whether there is no store yet; a synthetic log is looked at again, since its choices may have changed."""
    data = config.data
    is_missing = not (Path(data.store) / "manifest.json").exists()
    return data.synthetic.num_users > 0 or (bool(data.log) and is_missing)


def _start(module: str, overrides: list[str], config: "RunConfig | None" = None) -> int:
    """Run ``python -m module overrides`` here, on ``hardware.num_ranks`` processes where ``config`` is given."""
    if config is None:
        return run_module(module, overrides)
    num_ranks, num_threads = config.hardware.num_ranks, config.hardware.num_threads
    if num_ranks == 1:
        return run_module(module, overrides, num_threads=num_threads)
    return run_module("train.agent", [str(num_ranks), module, *overrides], num_threads=num_threads)
