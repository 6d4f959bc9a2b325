"""What ``shardrec launch`` can start on a cluster: each verb's module, and how its configuration is composed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.errors import ConfigError

if TYPE_CHECKING:
    from configs.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Verb:
    """``module`` runs on every rank, ``preflight`` once before them. A verb that saves when it is told to end can be
    queued again and goes on."""

    name: str
    module: str
    preflight: str
    saves_when_stopped: bool

    @property
    def log_prefix(self) -> str:
        """Of files in a run's folder that are not training's own."""
        return "" if self.saves_when_stopped else f"{self.name}-"


TRAIN = Verb("train", "train", "train.preflight", saves_when_stopped=True)
EVALUATE = Verb("evaluate", "train.evaluate", "train.evaluation.preflight", saves_when_stopped=False)
EXPORT = Verb("export", "train.export", "train.export.preflight", saves_when_stopped=False)
RECOMMEND = Verb("recommend", "train.recommend", "train.recommend.preflight", saves_when_stopped=False)
VERBS = {verb.name: verb for verb in (TRAIN, EVALUATE, RECOMMEND, EXPORT)}


def verb_of(words: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb that ``words`` begin with, by default train, and the other words."""
    if not words or "=" in words[0] or words[0].startswith("-"):
        return TRAIN, list(words)
    if words[0] not in VERBS:
        raise ConfigError(f"{words[0]} cannot be launched; launch takes {', '.join(VERBS)}, and key=value")
    return VERBS[words[0]], list(words[1:])


def compose(verb: Verb, overrides: Sequence[str]) -> "tuple[RunConfig, list[str]]":
    """The run that ``verb`` works on, to be trained or there already, and ``overrides`` for its processes."""
    from configs.load import load_pinned  # hydra takes longer to import than --help may take
    from launch.saved_run import saved_run

    return load_pinned(overrides) if verb is TRAIN else saved_run(overrides)
