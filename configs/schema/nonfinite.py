"""What happens to a loss or a gradient that is not finite."""

from dataclasses import dataclass

from configs.errors import require


@dataclass(kw_only=True, slots=True)
class NonFiniteConfig:
    """What happens when a loss or a gradient is not finite: the step is left out, then the run is rolled back."""

    max_nonfinite_steps: int = 5
    """So many bad steps in a row restore the last whole checkpoint, and those steps are not trained again."""
    max_rollbacks: int = 3
    """One more ends the run."""

    def __post_init__(self) -> None:
        require(
            self.max_nonfinite_steps >= 1,
            f"nonfinite.max_nonfinite_steps={self.max_nonfinite_steps} must be at least 1",
        )
        require(self.max_rollbacks >= 0, f"nonfinite.max_rollbacks={self.max_rollbacks} must not be negative")
