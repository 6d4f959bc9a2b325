"""The training loop: all that happens between the first step and the last, in order."""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import Protocol

from configs.schema import NonFiniteConfig
from data_pipeline.batch import SequenceBatch
from train.progress import RunProgress
from train.state import TrainState
from train.step import StepMetrics, train_step


class Outcome(Enum):
    """Why :func:`train` came back."""

    TRAINED = "trained"
    STOPPED = "stopped"
    DIVERGED = "diverged"


class Tracker(Protocol):
    """Writes down how the run goes."""

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is logged."""

    def count(self, metrics: StepMetrics) -> None:
        """Add a step's tokens, without a wait for the device."""

    def log(self, step: int, metrics: StepMetrics) -> None:
        """Write the step down. Collective."""

    def account(self, progress: RunProgress) -> None:
        """Write time and tokens up to now into ``progress``. Collective."""

    def log_quality(self, step: int, quality: dict[str, float]) -> None:
        """Write a validation down."""


class Checkpointer(Protocol):
    """Keeps what a restart needs."""

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is saved."""

    def save(self, state: TrainState, progress: RunProgress) -> None:
        """Save the run. Collective."""

    def save_best(self, state: TrainState, progress: RunProgress) -> None:
        """Keep the best model so far. Collective."""


class Validator(Protocol):
    """Ranks the validation events."""

    def is_due(self, step: int) -> bool:
        """Whether the run is validated after ``step``."""

    def quality(self, state: TrainState) -> dict[str, float]:
        """Exact quality, the same on every rank. Collective."""


def train(
    state: TrainState,
    batches: Iterator[SequenceBatch],
    progress: RunProgress,
    *,
    num_steps: int,
    patience: int,
    nonfinite: NonFiniteConfig,
    is_stop_agreed: Callable[[], bool],
    tracker: Tracker,
    checkpointer: Checkpointer,
    validator: Validator,
) -> Outcome:
    """Advance ``state`` to ``num_steps``, or until ``patience`` validations in a row were not better.

    What ``validator`` raises where it is stopped passes through: the run can be saved then as at any step.
    """
    if validator.is_due(state.step) and progress.misses_validation(state.step):  # the last session was stopped in it
        _validate(state, progress, tracker, checkpointer, validator)
    while state.step < num_steps and progress.validations_without_improvement < patience:
        if is_stop_agreed():  # collective
            return Outcome.STOPPED
        batch = next(batches)
        if progress.is_skipped(state.step):
            state.step += 1
            continue
        metrics = train_step(state, batch)
        state.step += 1
        tracker.count(metrics)
        progress.record_step(metrics.is_finite)
        if progress.num_nonfinite_in_row == nonfinite.max_nonfinite_steps:
            return Outcome.DIVERGED
        if tracker.is_due(state.step):
            tracker.log(state.step, metrics)
        if validator.is_due(state.step):
            _validate(state, progress, tracker, checkpointer, validator)
        if checkpointer.is_due(state.step):
            tracker.account(progress)
            checkpointer.save(state, progress)
    if progress.validated_step < state.step:
        _validate(state, progress, tracker, checkpointer, validator)
    return Outcome.TRAINED


def _validate(
    state: TrainState, progress: RunProgress, tracker: Tracker, checkpointer: Checkpointer, validator: Validator
) -> None:
    quality = validator.quality(state)
    tracker.log_quality(state.step, quality)
    if progress.record_validation(state.step, quality):
        checkpointer.save_best(state, progress)
