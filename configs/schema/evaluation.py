"""How a model is ranked."""

from dataclasses import dataclass

from configs.bounds import COUNT, check_bounds


@dataclass(kw_only=True, slots=True)
class EvaluationConfig:
    """Exact ranking of the whole catalogue."""

    every_epochs: int = 1
    """Validate, and keep the best model, every this many epochs."""
    every_steps: int = 0
    """Validate every this many steps; 0: by ``evaluation.every_epochs``."""
    patience: int = 10
    """Validations in a row without a better model that end the run."""
    leave_out_seen: bool = True
    """Items of the user's history are no candidates."""
    batch_size: int = 256
    """Users that are ranked at once."""
    num_bootstrap_samples: int = 1000
    """Resamplings of the test users behind each confidence interval."""

    def __post_init__(self) -> None:
        check_bounds(
            "evaluation.",
            self,
            every_epochs=(1, COUNT),
            every_steps=(0, COUNT),
            patience=(1, COUNT),
            batch_size=(1, 2**20),
            num_bootstrap_samples=(1, 10**5),
        )
