"""The training loop: all that happens between the first step and the last, in order."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from data_pipeline.batch import SequenceBatch
from train.state import TrainState
from train.step import StepMetrics, train_step


class Tracker(Protocol):
    """Writes down how the run goes."""

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is logged."""
        ...

    def count(self, metrics: StepMetrics) -> None:
        """Add a step's tokens, without a wait for the device."""
        ...

    def log(self, step: int, metrics: StepMetrics) -> None:
        """Write the step down. Collective."""
        ...

    def account(self, progress: "Progress") -> None:
        """Write time and tokens up to now into ``progress``. Collective."""
        ...

    def log_quality(self, step: int, quality: dict[str, float]) -> None:
        """Write a validation down."""
        ...


class Checkpointer(Protocol):
    """Keeps what a restart needs."""

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is saved."""
        ...

    def save(self, state: TrainState, progress: "Progress") -> None:
        """Save the run. Collective."""
        ...

    def save_best(self, state: TrainState, progress: "Progress") -> None:
        """Keep the best model so far. Collective."""
        ...


class Validator(Protocol):
    """Ranks the validation events."""

    def is_due(self, step: int) -> bool:
        """Whether the run is validated after ``step``."""
        ...

    def quality(self, state: TrainState) -> dict[str, float]:
        """Exact quality, the same on every rank. Collective."""
        ...


@dataclass(slots=True)
class Progress:
    """What the run has seen and spent; part of every checkpoint."""

    best_step: int = 0
    best_ndcg: float = -1.0
    num_worse: int = 0
    """Validations in a row without a better one."""
    wall_s: float = 0.0
    num_tokens: int = 0
    """Spent by all sessions of the run up to the checkpoint, over all ranks."""
    quality: dict[str, float] = field(default_factory=dict)


def train(
    state: TrainState,
    batches: Iterator[SequenceBatch],
    *,
    num_steps: int,
    patience: int,
    progress: Progress,
    tracker: Tracker,
    checkpointer: Checkpointer,
    validator: Validator,
) -> Progress:
    """Advance ``state`` to ``num_steps``, or until ``patience`` validations in a row were not better."""
    while state.step < num_steps and progress.num_worse < patience:
        metrics = train_step(state, next(batches))
        state.step += 1
        tracker.count(metrics)
        if tracker.is_due(state.step):
            tracker.log(state.step, metrics)  # waits for the device
        if validator.is_due(state.step) or state.step == num_steps:
            _validate(state, progress, tracker, checkpointer, validator)
        if checkpointer.is_due(state.step):
            tracker.account(progress)
            checkpointer.save(state, progress)
    return progress


def _validate(
    state: TrainState, progress: Progress, tracker: Tracker, checkpointer: Checkpointer, validator: Validator
) -> None:
    quality = validator.quality(state)
    tracker.log_quality(state.step, quality)
    progress.num_worse += 1
    if quality["ndcg@10"] > progress.best_ndcg:
        progress.best_step, progress.best_ndcg = state.step, quality["ndcg@10"]
        progress.num_worse, progress.quality = 0, quality
        checkpointer.save_best(state, progress)
