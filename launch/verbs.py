"""What ``shardrec launch`` can start on a cluster: each verb's module, and how its configuration is composed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from launch.command import run_module

if TYPE_CHECKING:
    from configs.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Verb:
    """``module`` runs on every rank. A verb that saves when it is told to end can be queued again and goes on."""

    name: str
    module: str
    saves_when_stopped: bool


TRAIN = Verb("train", "train", saves_when_stopped=True)
EVALUATE = Verb("evaluate", "train.evaluate", saves_when_stopped=False)
VERBS = {verb.name: verb for verb in (TRAIN, EVALUATE)}


def verb_of(words: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb that ``words`` begin with, by default train, and the other words."""
    if not words or "=" in words[0] or words[0].startswith("-"):
        return TRAIN, list(words)
    if words[0] not in VERBS:
        raise ConfigError(f"{words[0]} cannot be launched; launch takes {', '.join(VERBS)}, and key=value")
    return VERBS[words[0]], list(words[1:])


def compose(verb: Verb, overrides: Sequence[str]) -> "RunConfig":
    """The run that ``verb`` works on: to be trained, or one that is there with ``overrides`` over its own keys."""
    from configs.load import load_config  # hydra takes longer to import than --help may take

    return load_config(overrides) if verb.saves_when_stopped else _composed_over_run(overrides)


def _composed_over_run(overrides: Sequence[str]) -> "RunConfig":
    from configs.load import load_config
    from configs.run_dir import READER, local_run_dir
    from configs.url import is_url

    config = load_config(overrides)
    if is_url(config.run_dir) and run_module("train.run_dir.fetch_overrides", overrides):
        raise ConfigError(f"run_dir={config.run_dir} cannot be read; the line above says why")
    saved = local_run_dir(config, READER) / "overrides.txt"
    if not saved.is_file():
        raise ConfigError(f"run_dir={config.run_dir} holds no run; train it first")
    return load_config([*saved.read_text().splitlines(), *overrides])
