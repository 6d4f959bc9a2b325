"""How a run is saved."""

from dataclasses import dataclass

from configs.bounds import COUNT, check_bounds


@dataclass(kw_only=True, slots=True)
class CheckpointConfig:
    """How often a run is saved and how many checkpoints are kept besides the best."""

    every_steps: int = 500
    """Save a checkpoint every this many steps."""
    keep_last: int = 2
    """Newest checkpoints that are kept; the best one is kept besides."""
    asynchronous: bool = True
    """Write checkpoints while training continues; false: training waits until they are on disk."""

    def __post_init__(self) -> None:
        check_bounds("checkpoint.", self, every_steps=(1, COUNT), keep_last=(1, COUNT))
