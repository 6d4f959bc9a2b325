"""Composition root of a run: builds its parts in order, trains, ranks the test events once, writes the summary."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import torch
import torch.distributed as dist

from configs.errors import FULL_DISK, ConfigError, exit_code_of
from configs.load import load_config
from configs.run_dir import describe_run_dir, local_run_dir
from configs.schema import DataConfig, LongHistories, RunConfig
from data_pipeline.store.manifest import Manifest, identity_digests, load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from models.collectives import nothing
from train.accounting.energy import meter_of_all
from train.accounting.ledger import Ledger
from train.accounting.phase_clock import Phase, PhaseClock
from train.accounting.timed_step import TimedCollectives
from train.build import build_state as build_state
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import control_group, from_rank_zero, on_rank_zero, process_group
from train.evaluation.groups import refuse_unknown_groups
from train.evaluation.item_models import require_room
from train.evaluation.protocol import Validator, require_targets
from train.evaluation.ranking import StopRequested
from train.evaluation.split_report import split_report
from train.evaluation.summary import Summary, print_table
from train.finish import finish, finished_summary, forget_best, holds_out
from train.loop import Outcome, train
from train.metrics_logger import RunTracker
from train.profiler import StepProfiler
from train.progress import RunProgress
from train.refit import is_fitted, refit
from train.run_dir.identity import open_run_folder, record_beginning
from train.run_dir.store_version import at_version, manifest_of_run, pin
from train.run_dir.sync import synced_run
from train.run_dir.writer import writing_run
from train.session import Session
from train.sharding import placement_of
from train.state import TrainState
from train.supervision.stop_signals import StopVote
from train.supervision.watchdog import Watchdog
from train.trackers import Tracker, open_trackers
from train.warm_start import model_of, warm_start


def run(config: RunConfig, overrides: Sequence[str], early_s: float = 0.0) -> int:
    """Train ``config`` to its end, resuming what ``run_dir`` holds, and write ``summary.json``. Collective.

    ``early_s``: how long the devices were held for it before. Returns 0, or after a stop signal, with the run saved,
    the exit code that means "start me again".
    """
    with _session(config, overrides, PhaseClock(early_s)) as session:
        stream = session.stream(session.config.data)
        num_steps = config.num_steps or config.num_epochs * stream.steps_per_epoch
        found = _select(session, stream, num_steps)  # its model's memory is free when it comes back
        if isinstance(found, int):
            return found
        if not config.train.refit or is_fitted(session, found):
            return 0
        return refit(session, found, stream.steps_per_epoch, num_steps)


@contextmanager
def _session(config: RunConfig, overrides: Sequence[str], clock: PhaseClock) -> Iterator[Session]:
    """The ranks have met, the data is known and fits, the folder is this job's. Collective."""
    with (
        process_group(config.hardware) as device,
        Watchdog(config.hardware) as watchdog,
        StopVote(control_group()) as stop,
        writing_run(config, watchdog.heartbeat) as check_writer,
        synced_run(config, watchdog.heartbeat) as sync,
    ):
        config = _at_version_of_run(config)
        manifest = load_manifest(config.data.store, config.data.version)
        on_rank_zero(lambda: _print_split(config, manifest, watchdog.heartbeat))
        require_targets(config, manifest)
        collectives = TimedCollectives(clock)
        on_rank_zero(lambda: refuse_unknown_groups(config, manifest))
        require_room(config.evaluation, manifest.num_items)
        on_rank_zero(lambda: open_run_folder(config, overrides, identity_digests(manifest), collectives.world_size))
        ledger = Ledger(clock, config.hardware, collectives, *meter_of_all(collectives, device))
        send = nothing if sync is None else sync.remote.send_sessions
        clock.align(from_rank_zero(lambda: ledger.open(local_run_dir(config), send)))
        if sync is not None:
            sync.send_records()
        with ledger:
            yield Session(config, manifest, device, collectives, watchdog, stop, sync, check_writer, ledger)


def _select(session: Session, stream: SequenceStream, num_steps: int) -> Summary | int:
    """Train, validate, and rank the test events with the best model: the summary, or the exit code after a stop.
    Collective."""
    config = session.config
    state = build_state(config, session.manifest, num_steps, session.collectives, session.device, clock=session.clock)
    session.watchdog.follow(lambda: state.step)
    with (
        DiskCheckpointer(
            session.folder, config.checkpoint, session.watchdog.heartbeat, session.sync, session.check_writer
        ) as checkpointer,
        _tracker(session, state, progress := checkpointer.restore_latest(state), num_steps) as tracker,
    ):
        summary = finished_summary(session, state, progress, num_steps)
        if summary is not None:
            if session.is_rank_zero:
                print_table(summary)
            return summary
        if config.init_from and not progress.warm_start:
            progress.warm_start = warm_start(session, state)
            on_rank_zero(lambda: record_beginning(session.folder, model_of(progress.warm_start)))
            checkpointer.save(state, progress)  # from here on a restart does not ask the other run
        if progress.best_step and not checkpointer.has_best():
            forget_best(session, progress, f"{config.run_dir}/checkpoints/best is gone")
        session.clock.begin_work()
        session.say(_run_banner(config, state, session.manifest, num_steps))
        validator = _validator(session, stream)
        outcome, progress = _train(session, state, stream, progress, num_steps, tracker, checkpointer, validator)
        tracker.account(progress)
        checkpointer.save(state, progress)
        with session.clock.phase(Phase.CHECKPOINTS):
            checkpointer.wait()
        if outcome is Outcome.STOPPED:
            return session.stopped(f"at step {state.step}", state.step)
        try:
            return finish(session, state, progress, checkpointer, validator)
        except StopRequested:
            return session.stopped(f"at step {state.step}", state.step)


def _validator(session: Session, stream: SequenceStream) -> Validator | None:
    """None where no event is held out."""
    config = session.config
    every_steps = config.evaluation.every_steps or config.evaluation.every_epochs * stream.steps_per_epoch
    if not holds_out(session):
        return None
    return Validator(config, session.manifest, every_steps, session.is_stop_requested)


def _train(
    session: Session,
    state: TrainState,
    stream: SequenceStream,
    progress: RunProgress,
    num_steps: int,
    tracker: RunTracker,
    checkpointer: DiskCheckpointer,
    validator: Validator | None,
) -> tuple[Outcome, RunProgress]:
    """Train, again from the last checkpoint where the run diverged, until it is trained or stopped. Collective."""
    config = session.config
    while True:
        try:
            with (
                closing(stream.batches(start=state.step)) as batches,
                StepProfiler(session.folder, config.profile.steps, session.collectives.rank) as profiled,
            ):
                outcome = train(
                    state,
                    batches,
                    progress,
                    num_steps=num_steps,
                    patience=config.evaluation.patience,
                    target=config.train.target_quality,
                    nonfinite=config.nonfinite,
                    is_stop_agreed=session.stop.is_agreed,
                    tracker=tracker,
                    checkpointer=checkpointer,
                    validator=validator,
                    profiled=profiled,
                )
        except StopRequested:  # in a validation, with which the next start begins
            outcome = Outcome.STOPPED
        if outcome is not Outcome.DIVERGED:
            return outcome, progress
        progress = roll_back(state, progress, checkpointer, config)


def _at_version_of_run(config: RunConfig) -> RunConfig:
    """``config`` with the version of the store that the run reads, which rank 0 looks up and every rank takes, and
    which is pinned before anything is read. Collective."""
    version = torch.zeros(1, dtype=torch.int64)

    def choose() -> None:
        manifest = manifest_of_run(config, local_run_dir(config))
        if told := pin(config, manifest):
            print(told, flush=True)
        version[0] = manifest.version

    on_rank_zero(choose)
    version = version.to(config.hardware.device)
    dist.broadcast(version, src=0)
    return at_version(config, int(version))


def roll_back(
    state: TrainState, progress: RunProgress, checkpointer: DiskCheckpointer, config: RunConfig
) -> RunProgress:
    """Restore the last whole checkpoint, from which training goes on without the skipped range. Collective.

    Raises :class:`ConfigError` where there is none, or where it was tried ``nonfinite.max_rollbacks`` times.
    """
    end, num_bad = state.step, progress.num_nonfinite_in_row
    what = f"loss or gradient was not finite in {num_bad} steps in a row, up to step {end}"
    hint = "lower optimizer.lr and optimizer.table_lr, or look at the events of these steps"
    if progress.num_rollbacks >= config.nonfinite.max_rollbacks:
        raise ConfigError(f"{what}, after {progress.num_rollbacks} rollbacks (nonfinite.max_rollbacks); {hint}")
    checkpointer.wait()  # or one rank would see the checkpoint under way, and another not
    if not checkpointer.has_steps():
        raise ConfigError(f"{what}, and run_dir={config.run_dir} holds no checkpoint to go back to; {hint}")
    restored = checkpointer.restore_latest(state)
    restored.merge_after_rollback(progress, end)
    if state.collectives.rank == 0:
        print(f"{what}; back to step {state.step}, those steps will be left out", flush=True)
    return restored


def main(overrides: Sequence[str], early_s: float = 0.0) -> int:
    """Entry of ``python -m train``: 0, 2 after one line on stderr for what a person can mend, 75 after a stop.
    ``early_s``: as of :func:`run`."""
    return exit_code_of(lambda: _run_on_disk(load_config(overrides), overrides, early_s))


def _run_on_disk(config: RunConfig, overrides: Sequence[str], early_s: float) -> int:
    """:func:`run`, with a full disk told as one; only rank 0 knows where its own small files do not fit."""
    try:
        with _no_traceback_of_full_disk():
            return run(config, overrides, early_s)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise ConfigError(
            f"{describe_run_dir(config)}: {error.strerror}; make room and start the same command again"
        ) from error


@contextmanager
def _no_traceback_of_full_disk() -> Iterator[None]:
    """TensorBoard writes on a thread of its own and raises there what it raises here at the next event again."""
    report = threading.excepthook

    def report_others(told: threading.ExceptHookArgs) -> None:
        if not (isinstance(told.exc_value, OSError) and told.exc_value.errno in FULL_DISK):
            report(told)

    threading.excepthook = report_others
    try:
        yield
    finally:
        threading.excepthook = report


def _run_banner(config: RunConfig, state: TrainState, manifest: Manifest, num_steps: int) -> str:
    """What the run will do, in one line."""
    learnt = sum(parameter.numel() for parameter in state.model.module.parameters() if parameter.requires_grad)
    return (
        f"{config.run_dir}: steps {state.step} to {num_steps} of {_batch_of(config.data)} on "
        f"{state.collectives.world_size} ranks; {manifest.num_users:,} users, {manifest.num_items:,} items, "
        f"{manifest.num_events:,} events; tables: {placement_of(state.model)}; {learnt:,} parameters on this rank"
    )


def _print_split(config: RunConfig, manifest: Manifest, heartbeat: Callable[[], None]) -> None:
    """The share of each part of the data, and what is odd about them; one line each."""
    for line in split_report(config.data, manifest, heartbeat).lines(config, manifest):
        print(line, flush=True)


def _batch_of(config: DataConfig) -> str:
    if config.global_batch_tokens:
        return f"about {config.global_batch_tokens:,} tokens"
    what = "users" if config.long_histories is LongHistories.LATEST else "sequences"
    return f"{config.global_batch_size:,} {what}"


def _tracker(session: Session, state: TrainState, progress: RunProgress, num_steps: int) -> RunTracker:
    spent_before = session.ledger.resume(progress)
    folder, every_steps = session.folder, session.config.log_every_steps
    trackers: list[Tracker] = []
    on_rank_zero(lambda: trackers.extend(open_trackers(session.config.tracking, folder, session.config.run_dir)))
    return RunTracker(
        folder,
        progress,
        session.ledger,
        spent_before,
        every_steps=every_steps,
        num_steps=num_steps,
        state=state,
        trackers=trackers,
    )
