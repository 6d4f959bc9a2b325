"""``shardrec VERB key=value ...``: says what it will do, starts it, and returns its exit code."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from configs.errors import USAGE_EXIT_CODE, ConfigError, exit_code_of
from launch.command import run_module

if TYPE_CHECKING:
    from configs.schema import RunConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code of what it started, or 2 after one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        from launch.help import general_help

        print(general_help())
        return 0 if words else USAGE_EXIT_CODE
    verb, *overrides = words
    if any(word in ("-h", "--help") for word in overrides):
        return exit_code_of(lambda: _help(verb))
    return exit_code_of(lambda: _verb_of(verb)(overrides))


def _help(verb: str) -> int:
    _verb_of(verb)
    from launch.help import verb_help

    print(verb_help(verb))
    return 0


def _verb_of(name: str) -> Callable[[list[str]], int]:
    verbs = {
        "config": _config,
        "prepare": _prepare,
        "inspect": _inspect,
        "train": _train,
        "launch": _launch,
        "doctor": _doctor,
        "evaluate": _evaluate,
        "bench": _bench,
    }
    if name not in verbs:
        raise ConfigError(f"{name} is not a verb; use one of {', '.join(verbs)}")
    return verbs[name]


def _config(overrides: list[str]) -> int:
    if overrides == ["--reference"]:
        from launch.reference_page import reference_page

        print(reference_page(), end="")
        return 0
    from configs.load import load_config, resolved_yaml  # hydra takes longer to import than --help may take

    print(resolved_yaml(load_config(overrides)), end="")
    return 0


def _prepare(overrides: list[str]) -> int:
    _composed(overrides)
    return run_module("data_pipeline.prepare", overrides)


def _inspect(words: list[str]) -> int:
    return run_module("data_pipeline.inspect", words)


def _train(overrides: list[str]) -> int:
    from launch.clusters.local import train_locally

    return train_locally(_composed(overrides), overrides)


def _launch(words: list[str]) -> int:
    from launch.start import launch

    return launch(words)


def _evaluate(overrides: list[str]) -> int:
    from configs.atomic_files import read_text
    from configs.run_dir import READER, local_run_dir
    from configs.url import is_url
    from launch.clusters.local import run_ranks

    config = _composed(overrides)
    if is_url(config.run_dir) and (code := run_module("train.run_dir.fetch_overrides", overrides)):
        return code
    saved = local_run_dir(config, READER) / "overrides.txt"
    if not saved.is_file():
        raise ConfigError(f"run_dir={config.run_dir} holds no run; train it first")
    return run_ranks("train.evaluate", _composed([*read_text(saved).splitlines(), *overrides]), overrides)


def _bench(overrides: list[str]) -> int:
    if not overrides or "=" in overrides[0]:
        raise ConfigError("bench needs the NAME of a benchmark first: shardrec bench NAME [key=value ...]")
    return run_module("benchmarks", overrides)


def _doctor(overrides: list[str]) -> int:
    from launch.doctor.examination import examine  # it starts other programs; --help needs none of it

    return examine(overrides)


def _composed(overrides: list[str]) -> "RunConfig":
    from configs.load import load_config

    return load_config(overrides)
