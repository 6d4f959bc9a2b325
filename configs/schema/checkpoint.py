"""How a run is saved."""

from dataclasses import dataclass
from enum import Enum

from configs.bounds import COUNT, check_bounds


class CheckpointUse(str, Enum):
    """Which of a run's models a verb takes."""

    AUTO = "auto"
    BEST = "best"
    FINAL = "final"


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """How often a run is saved and how many checkpoints are kept besides the best."""

    every_steps: int = 500
    """Save a checkpoint every this many steps."""
    keep_last: int = 2
    """Newest checkpoints that are kept; the best one is kept besides."""
    asynchronous: bool = True
    """Write checkpoints while training continues; false: training waits until they are on disk."""

    use: CheckpointUse = CheckpointUse.AUTO
    """Model that a verb takes of a run: best (chosen by validation) or final (train.refit=true, data.split=none);
    auto: final where there is one, but evaluate takes the best one, whose test events are held out."""

    def __post_init__(self) -> None:
        check_bounds("checkpoint.", self, every_steps=(1, COUNT), keep_last=(1, COUNT))
