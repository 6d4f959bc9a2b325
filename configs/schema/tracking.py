"""Where a run's figures go besides its own files, and of which steps a trace is written."""

from dataclasses import dataclass, field

from configs.errors import require


@dataclass(kw_only=True, slots=True)
class TrackingConfig:
    """Services that get each figure of ``metrics.jsonl``; TensorBoard's files are always written. docs/cost.md"""

    mlflow: str = ""
    """Address of an MLflow tracking server, or ``sqlite:///FILE``; empty: none. It needs the extra ``mlflow``."""
    mlflow_experiment: str = "shardrec"
    """Experiment of MLflow that the run belongs to."""
    wandb: str = ""
    """Project of Weights & Biases; empty: none. It needs the extra ``wandb``, and with the environment variable
    ``WANDB_MODE=offline`` no network."""

    def __post_init__(self) -> None:
        require(
            bool(self.mlflow_experiment.strip()) or not self.mlflow,
            "tracking.mlflow_experiment is empty; name an experiment",
        )


@dataclass(kw_only=True, slots=True)
class ProfileConfig:
    """A trace of some steps by torch's profiler, in RUN/profile."""

    steps: list[int] = field(default_factory=list)
    """First and last step of which a trace and a table are written, such as ``[20,25]``; empty: none."""

    def __post_init__(self) -> None:
        if not self.steps:
            return
        is_range = len(self.steps) == 2 and self.steps[0] <= self.steps[1]
        require(
            is_range,
            f"profile.steps={self.steps} is no first and last step; set two numbers, as profile.steps=[20,25]",
        )
        for name, value in zip(("first", "last"), self.steps, strict=True):
            require(1 <= value <= 10**12, f"profile.steps={self.steps}: the {name} step must be at least 1")
