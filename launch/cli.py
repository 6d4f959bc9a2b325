"""``shardrec VERB key=value ...``: says what it will do, starts it, and returns its exit code."""

import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import USAGE_EXIT_CODE, ConfigError, ToldByRankZero, exit_code_of
from configs.paths import checked_path
from configs.terminal import require_shown, survive_lost_output
from launch.command import run_module
from launch.verbs import EVALUATE, EXPORT, RECOMMEND, TRAIN, VERBS, Verb, compose

if TYPE_CHECKING:
    from configs.schema import RunConfig

CONFIG_DIR_FLAG = "--config-dir"
"""Hydra's spelling of ``config_dir=PATH``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code of what it started, or 2 after one line on stderr."""
    if arguments is None:
        survive_lost_output()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        from launch.help import general_help

        print(general_help())
        return 0 if words else USAGE_EXIT_CODE
    if words == ["--version"]:
        return exit_code_of(_version)
    return exit_code_of(lambda: run_verb(words))


def run_verb(words: Sequence[str]) -> int:
    """Run one verb; its exit code. Raises :class:`ConfigError` for what is found before anything is started."""
    verb, *others = _with_config_dir(words)
    start = _verb_of(verb)
    if any(word in ("-h", "--help") for word in others):
        from launch.help import verb_help

        print(verb_help(verb))
        return 0
    return start(others)


def _version() -> None:
    from importlib.metadata import version

    print(f"shardrec {version('shardrec')}")


def _with_config_dir(words: Sequence[str]) -> list[str]:
    """``words`` with ``--config-dir PATH`` as ``config_dir=PATH``, a path that holds in every process."""
    found, left = list[str](), list(words)
    while left:
        word = left.pop(0)
        flag, equals, path = word.partition("=")
        if flag == CONFIG_DIR_FLAG:
            if not equals and not left:
                raise ConfigError(f"{CONFIG_DIR_FLAG} needs the folder of your YAML files: {CONFIG_DIR_FLAG} PATH")
            word = f"config_dir={path if equals else left.pop(0)}"
        found.append(word)
    is_plain = [word for word in found if word.startswith("config_dir=") and "${" not in word and word[11:]]
    return [
        f"config_dir={Path(checked_path('config_dir', word[11:])).absolute()}" if word in is_plain else word
        for word in found
    ]


def _verb_of(name: str) -> Callable[[list[str]], int]:
    verbs = {
        "config": _config,
        "prepare": _prepare,
        "inspect": _inspect,
        "prune": _prune,
        "train": _train,
        "launch": _launch,
        "doctor": _doctor,
        "evaluate": _on_a_run(EVALUATE),
        "export": _on_a_run(EXPORT),
        "recommend": _on_a_run(RECOMMEND),
        "follow": _follow,
        "serve": _serve,
        "compare": _compare,
        "sweep": _sweep,
        "report": _report,
        "bench": _bench,
        "completion": _completion,
    }
    if name not in verbs:
        close = get_close_matches(name, verbs, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(verbs)}"
        raise ConfigError(f"{name} is not a verb; {hint}")
    if name in ("launch", "follow") or name in VERBS:
        _refuse_torchrun(name)
    return verbs[name]


def _refuse_torchrun(verb: str) -> None:
    """Of the processes that torchrun starts each would start a whole run of its own; the first one says so."""
    if "TORCHELASTIC_RUN_ID" in os.environ and "LOCAL_RANK" in os.environ:
        kind = ConfigError if os.environ["LOCAL_RANK"] == "0" else ToldByRankZero
        module = "train.follow" if verb == "follow" else VERBS.get(verb, TRAIN).module
        raise kind(
            f"torchrun starts `shardrec {verb}` once a rank, and each would start its own ranks; write "
            f"torchrun ... -m {module} key=value ..., or `shardrec {verb} hardware.num_ranks=N` without torchrun"
        )


def _config(overrides: list[str]) -> int:
    if overrides == ["--reference"]:
        from launch.reference_page import reference_page

        print(reference_page(), end="")
        require_shown()
        return 0
    from configs.load import load_config, resolved_yaml  # hydra takes longer to import than --help may take

    print(resolved_yaml(load_config(overrides)), end="")
    require_shown()
    return 0


def _prepare(overrides: list[str]) -> int:
    _, words = _pinned(overrides)
    return run_module("data_pipeline.prepare", words)


def _inspect(words: list[str]) -> int:
    return run_module("data_pipeline.inspect", words)


def _prune(words: list[str]) -> int:
    return run_module("data_pipeline.prepare.prune", words)


def _train(overrides: list[str]) -> int:
    from launch.clusters.local import train_locally

    return train_locally(*_pinned(overrides, machine=True))


def _launch(words: list[str]) -> int:
    from launch.start import launch

    return launch(words)


def _on_a_run(verb: Verb) -> Callable[[list[str]], int]:
    """Run ``verb`` on the ranks of this machine, with what a run's folder holds."""

    def start(overrides: list[str]) -> int:
        from launch.clusters.local import run_ranks

        config, words = compose(verb, overrides)
        return run_module(verb.preflight, words) or run_ranks(verb.module, config, words)

    return start


def _follow(overrides: list[str]) -> int:
    from launch.clusters.local import follow_locally

    return follow_locally(*_pinned(overrides, machine=True))


def _serve(words: list[str]) -> int:
    from launch.serve.start import start

    return start(words)


def _compare(words: list[str]) -> int:
    return run_module("benchmarks.compare", words)


def _sweep(words: list[str]) -> int:
    return run_module("benchmarks.sweep", words)


def _report(words: list[str]) -> int:
    return run_module("benchmarks.report", words)


def _bench(overrides: list[str]) -> int:
    if not overrides or "=" in overrides[0]:
        raise ConfigError("bench needs the NAME of a benchmark first: shardrec bench NAME [key=value ...]")
    return run_module("benchmarks", overrides)


def _doctor(overrides: list[str]) -> int:
    from launch.doctor.examination import examine  # it starts other programs; --help needs none of it

    return examine(overrides)


def _completion(words: list[str]) -> int:
    from launch.completion import completion_script

    print(completion_script(words), end="")
    require_shown()
    return 0


def _pinned(overrides: list[str], *, machine: bool = False) -> "tuple[RunConfig, list[str]]":
    """The config, and the overrides that give the same one in every process that composes them."""
    from configs.load import load_pinned

    return load_pinned(overrides, machine=machine)
