"""What happens to a loss or a gradient that is not finite."""

from dataclasses import dataclass

from configs.bounds import COUNT, check_bounds


@dataclass(kw_only=True, slots=True)
class NonFiniteConfig:
    """What happens when a loss or a gradient is not finite: the step is left out, then the run is rolled back."""

    max_nonfinite_steps: int = 5
    """After this many nonfinite steps in a row the last checkpoint is restored and those steps are skipped."""
    max_rollbacks: int = 3
    """Rollbacks that a run may take; one more ends it."""

    def __post_init__(self) -> None:
        check_bounds("nonfinite.", self, max_nonfinite_steps=(1, COUNT), max_rollbacks=(0, COUNT))
