"""The final fit: a model trained anew on more events, for as many epochs as validation has found to be best.

It has checkpoints of its own series, ``refit-step-*``, so that a kill costs no more of it than of the run itself, and
ends as ``checkpoints/final``. ``RUN/refit/metrics.jsonl`` is its history.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from configs.errors import ConfigError
from configs.schema import DataConfig, RefitOn, Split
from data_pipeline.split import HeldOut, Subset
from data_pipeline.stream.sequence_stream import SequenceStream
from train.accounting.ledger import spent_of
from train.accounting.phase_clock import Phase
from train.build import build_state
from train.checkpoint.checkpointer import DiskCheckpointer
from train.evaluation.bootstrap import bootstrap_intervals
from train.evaluation.cost import cost_of, spending
from train.evaluation.metrics import quality_of
from train.evaluation.protocol import target_ranks_of
from train.evaluation.ranking import StopRequested
from train.evaluation.summary import Summary, print_final_model
from train.finish import has_final, record
from train.loop import Outcome, train
from train.metrics_logger import RunTracker
from train.progress import RunProgress
from train.run_dir.checkpoint_folder import FINAL, REFIT
from train.session import Session
from train.state import TrainState
from train.warm_start import warm_start

FOLDER = "refit"
FINAL_MODEL = "final_model"
"""The key of ``summary.json`` that says what the model to ship was trained on."""


@dataclass(frozen=True, slots=True)
class Refit:
    """What is trained: so many steps of ``stream``, on the course of a run of ``num_scheduled`` steps."""

    on: RefitOn
    best_step: int
    held_out: HeldOut
    stream: SequenceStream
    num_steps: int
    num_scheduled: int

    def made(self, progress: RunProgress | None) -> bool:
        """Whether a checkpoint with ``progress`` is one of this fit, and not of an earlier one."""
        found = None if progress is None else (progress.refit_on, progress.best_step)
        return found == (self.on.value, self.best_step)


def is_fitted(session: Session, summary: Summary) -> bool:
    """Whether ``summary`` is of a run whose final fit is done. Collective."""
    found, on = summary.get(FINAL_MODEL, {}), session.config.train.refit_on
    is_told = found.get("trained_on") == on.value and found.get("selected_step") == summary["best_step"]
    return has_final(session) and bool(is_told)


def refit(session: Session, summary: Summary, steps_per_epoch: int, num_steps: int) -> int:
    """Make the final model of the run that ``summary`` tells of, and add what there is to say of it; the exit code.

    ``num_steps`` and ``steps_per_epoch`` of the run itself. Collective.
    """
    plan = _plan_of(session, int(summary["best_step"]), steps_per_epoch, num_steps)
    config = session.config
    with session.clock.phase(Phase.START):
        state = build_state(
            config,
            session.manifest,
            plan.num_scheduled,
            session.collectives,
            session.device,
            plan.held_out,
            session.clock,
        )
    session.watchdog.follow(lambda: state.step)
    with DiskCheckpointer(
        session.folder, config.checkpoint, session.watchdog.heartbeat, session.sync, session.check_writer, REFIT
    ) as checkpointer:
        if plan.made(checkpointer.progress_of(FINAL)):
            progress = checkpointer.restore(FINAL, state)
        else:
            outcome, progress = _fit(session, plan, state, checkpointer)
            if outcome is Outcome.STOPPED:
                return session.stopped(f"in the final fit, at its step {state.step}", int(summary["steps"]))
        try:
            found = _described(session, plan, state, progress)
        except StopRequested:
            return session.stopped("while the final model was ranked", int(summary["steps"]))
    found["cost"] = cost_of(progress)
    session.ledger.gather()
    record(session, {**summary, "cost": summary["cost"] | spending(session.ledger), FINAL_MODEL: found})
    if session.is_rank_zero:
        print_final_model(found)
    return 0


def _plan_of(session: Session, best_step: int, steps_per_epoch: int, num_steps: int) -> Refit:
    config, on = session.config, session.config.train.refit_on
    data: DataConfig = config.data if on is RefitOn.VALIDATION else replace(config.data, split=Split.NONE)
    held_out = HeldOut.TEST if on is RefitOn.VALIDATION else HeldOut.NOTHING
    stream = session.stream(data, held_out)
    share = stream.steps_per_epoch / steps_per_epoch  # more events may make more steps of an epoch
    steps, scheduled = (max(round(each * share), 1) for each in (best_step, num_steps))
    return Refit(on, best_step, held_out, stream, steps, scheduled)


def _fit(
    session: Session, plan: Refit, state: TrainState, checkpointer: DiskCheckpointer
) -> tuple[Outcome, RunProgress]:
    """Train to the end, from the last checkpoint of this fit where there is one. Collective."""
    if not plan.made(checkpointer.latest_progress()):
        checkpointer.drop_steps()  # of a fit to an earlier best step
    progress = checkpointer.restore_latest(state)
    if session.config.init_from and not progress.warm_start:
        progress.warm_start = warm_start(session, state)
        checkpointer.save(state, progress)
    progress.refit_on, progress.best_step = plan.on.value, plan.best_step
    session.say(
        f"final fit on {_words(plan.on)}: steps {state.step} to {plan.num_steps}, as many epochs as up to the best "
        f"step, {plan.best_step}"
    )
    config = session.config
    with _tracker(session, plan, state, progress) as tracker, closing(plan.stream.batches(state.step)) as batches:
        outcome = train(
            state,
            batches,
            progress,
            num_steps=plan.num_steps,
            patience=config.evaluation.patience,
            nonfinite=config.nonfinite,
            is_stop_agreed=session.stop.is_agreed,
            tracker=tracker,
            checkpointer=checkpointer,
            validator=None,
        )
        if outcome is Outcome.DIVERGED:
            raise ConfigError(
                f"the final fit: loss or gradient was not finite in {progress.num_nonfinite_in_row} steps in a row, "
                f"up to step {state.step}; lower optimizer.lr and optimizer.table_lr, or leave train.refit out"
            )
        tracker.account(progress)
        if outcome is Outcome.STOPPED:
            checkpointer.save(state, progress)
        else:
            state.adopt_average()
            checkpointer.save_final(state, progress)
        checkpointer.wait()
    if outcome is Outcome.TRAINED:
        checkpointer.drop_steps()
    return outcome, progress


def _tracker(session: Session, plan: Refit, state: TrainState, progress: RunProgress) -> RunTracker:
    folder = session.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return RunTracker(
        folder,
        progress,
        session.ledger,
        spent_of(progress) - session.ledger.spent_here(),  # what is told of the fit is of the fit alone
        every_steps=session.config.log_every_steps,
        num_steps=plan.num_steps,
        state=state,
        label="final fit, ",
    )


def _described(session: Session, plan: Refit, state: TrainState, progress: RunProgress) -> dict[str, Any]:
    """What the summary says of the final model; its quality where the test events were held out. Collective."""
    found: dict[str, Any] = {
        "checkpoint": FINAL,
        "trained_on": plan.on.value,
        "selected_step": plan.best_step,
        "steps": plan.num_steps,
        "device_s": progress.device_s,
        "bad_steps": progress.num_nonfinite_steps,
    }
    if plan.on is RefitOn.EVERYTHING:
        return found
    config = session.config
    ranks = target_ranks_of(state, config, session.manifest.num_items, Subset.TEST, session.is_stop_requested)
    intervals = bootstrap_intervals(ranks, config.evaluation.num_bootstrap_samples, config.seed)
    quality = {"test": quality_of(ranks), "test_ci95": {key: list(each) for key, each in intervals.items()}}
    return {**found, "quality": quality}


def _words(on: RefitOn) -> str:
    return "training and validation events" if on is RefitOn.VALIDATION else "all events"
