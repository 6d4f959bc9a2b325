"""How a model is ranked."""

from dataclasses import dataclass

from configs.errors import require


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
        for name in ("every_epochs", "patience", "batch_size", "num_bootstrap_samples"):
            require(getattr(self, name) >= 1, f"evaluation.{name}={getattr(self, name)} must be at least 1")
        require(self.every_steps >= 0, f"evaluation.every_steps={self.every_steps} must not be negative")
