"""The training loop: all that happens between the first step and the last, in order."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import Enum

from configs.schema import NonFiniteConfig
from configs.schema.target import Target
from data_pipeline.batch import SequenceBatch
from train.accounting.phase_clock import Phase
from train.checkpoint.checkpointer import DiskCheckpointer
from train.evaluation.protocol import Validator
from train.metrics_logger import RunTracker
from train.profiler import not_profiled
from train.progress import RunProgress
from train.state import TrainState
from train.step import train_step


class Outcome(Enum):
    """Why :func:`train` came back."""

    TRAINED = "trained"
    STOPPED = "stopped"
    DIVERGED = "diverged"


def train(
    state: TrainState,
    batches: Iterator[SequenceBatch],
    progress: RunProgress,
    *,
    num_steps: int,
    patience: int,
    target: Target | None = None,
    nonfinite: NonFiniteConfig,
    is_stop_agreed: Callable[[], bool],
    tracker: RunTracker,
    checkpointer: DiskCheckpointer,
    validator: Validator | None,
    profiled: Callable[[int], AbstractContextManager[None]] = not_profiled,
) -> Outcome:
    """Advance ``state`` to ``num_steps``, until ``patience`` validations in a row were not better, or until one has
    reached ``target``. Without a ``validator``, where no event is held out, there is no best model.

    What ``validator`` raises where it is stopped passes through: the run can be saved then as at any step.
    """
    # the last session may have been stopped in a validation
    if validator and validator.is_due(state.step) and progress.misses_validation(state.step):
        _validate(state, progress, tracker, checkpointer, validator)
    while state.step < num_steps and not progress.is_ended(patience, target):
        if is_stop_agreed():  # collective
            return Outcome.STOPPED
        with state.clock.phase(Phase.DATA_WAIT):
            batch = next(batches)
        if progress.is_skipped(state.step):
            state.step += 1
            continue
        with profiled(state.step + 1):
            metrics = train_step(state, batch, is_measured=tracker.is_due(state.step + 1))
        state.step += 1
        tracker.count(metrics, batch)
        progress.record_step(metrics.is_finite)
        if progress.num_nonfinite_in_row == nonfinite.max_nonfinite_steps:
            return Outcome.DIVERGED
        if tracker.is_due(state.step):
            tracker.log(state.step, metrics)
        if validator and validator.is_due(state.step):
            _validate(state, progress, tracker, checkpointer, validator)
        if checkpointer.is_due(state.step):
            tracker.account(progress)
            checkpointer.save(state, progress)
    if validator and progress.validated_step < state.step:
        _validate(state, progress, tracker, checkpointer, validator)
    return Outcome.TRAINED


def _validate(
    state: TrainState,
    progress: RunProgress,
    tracker: RunTracker,
    checkpointer: DiskCheckpointer,
    validator: Validator,
) -> None:
    with state.averaged():
        quality = validator.quality(state)
        tracker.log_quality(state.step, quality, validator.metric)
        is_best = progress.record_validation(state.step, quality, validator.metric)
        tracker.log_costs(state.step, progress, quality, validator.metric, validator.target)
        if is_best:
            validator.keep_best(state.step)
            checkpointer.save_best(state, progress)
