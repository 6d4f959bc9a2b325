"""The end of a run: the best model is restored, the test events are ranked once, the summary is written."""

from pathlib import Path

from configs.atomic_files import read_json
from configs.errors import DataError
from configs.schema import Split
from data_pipeline.split import Subset
from train.accounting.phase_clock import Phase
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import control_group, from_rank_zero, on_rank_zero
from train.distributed.heartbeat import heartbeating
from train.evaluation.cost import cost_report
from train.evaluation.ending import ending_of
from train.evaluation.protocol import Validator
from train.evaluation.ranking import StopRequested
from train.evaluation.summary import Summary, print_table, summarise, write_summary
from train.evaluation.target_recorder import TargetRecorder
from train.evaluation.user_ranks import RANKS, RankedTargets, protocol_of, write_user_ranks
from train.progress import PROGRESS, RunProgress
from train.run_dir.checkpoint_folder import FINAL
from train.run_dir.remote_copy import CHECKPOINTS
from train.session import Session
from train.state import TrainState

SUMMARY = "summary.json"


def finished_summary(session: Session, state: TrainState, progress: RunProgress, num_steps: int) -> Summary | None:
    """The summary of a run that was trained to its end and told, the same on every rank; None where there is more to
    do. Collective."""
    config = session.config
    is_over = progress.is_ended(config.evaluation.patience, config.train.target_quality)
    is_trained = state.step >= num_steps or is_over
    is_trained = is_trained and (holds_out(session) or has_final(session))
    summary = from_rank_zero(lambda: _summary_of(session, state.step) if is_trained else None)
    if summary is not None:
        session.say(
            f"{session.config.run_dir}/{SUMMARY} is there; "
            f"{ending_of(session.config, progress, state.step, num_steps)}"
        )
    return summary


def finish(
    session: Session,
    state: TrainState,
    progress: RunProgress,
    checkpointer: DiskCheckpointer,
    validator: Validator | None,
) -> Summary:
    """Rank the test events with the best model and write the summary, which is returned on every rank; of a run
    without held-out events the last model is kept as the one to ship. Collective.

    Raises :class:`StopRequested` where a rank was asked to stop: all is saved, the next start ranks and counts.
    """
    config, num_trained = session.config, state.step
    session.say(ending_of(config, progress, num_trained, state.schedule.num_steps))
    own: Summary | None
    recorder, valid = TargetRecorder(session.collectives.rank), None
    try:
        if validator is None:
            state.adopt_average()
            checkpointer.save_final(state, progress)
            checkpointer.wait()
        else:
            restore_best(session, state, progress, checkpointer, validator)
            valid = validator.best_targets(state, progress.best_step)
        with session.clock.phase(Phase.BASELINES):  # what is not ranking itself: intervals and baselines
            own = summarise(
                state,
                config,
                session.manifest,
                progress,
                num_trained,
                session.watchdog.heartbeat,
                session.is_stop_requested,
                recorder,
            )
    except StopRequested:  # on every rank while they rank, on rank 0 alone while it counts
        own = None
    finally:
        state.step = num_trained  # a restored model says when it was the best
    summary = from_rank_zero(lambda: own, control_group())  # rank 0 may count for longer than a collective waits
    if summary is None:
        raise StopRequested
    if validator is not None:
        ranked = {Subset.VALID.value: valid, Subset.TEST.value: recorder.targets()}
        record_ranks(session, ranked, progress.best_step)
    cost = cost_report(session.ledger, state, progress, session.folder)
    summary["cost"] = from_rank_zero(lambda: cost)
    summary["throughput"]["wall_s"] = sum(each["wall_s"] for each in summary["cost"]["sessions"])
    record(session, summary)
    if session.is_rank_zero:
        print_table(summary)
    return summary


def record(session: Session, summary: Summary) -> None:
    """Write ``summary``; rank 0 does. Collective."""
    on_rank_zero(session.check_writer)
    on_rank_zero(lambda: write_summary(summary, session.folder / SUMMARY))


def record_ranks(session: Session, ranked: dict[str, RankedTargets | None], step: int) -> None:
    """Write where the targets stand with the model of ``step``; rank 0 does, and knows them. Collective."""
    config, manifest = session.config, session.manifest

    def write() -> None:
        session.check_writer()
        found = {name: targets for name, targets in ranked.items() if targets is not None}
        protocol = protocol_of(config, manifest, step)
        with heartbeating(session.watchdog.heartbeat):
            write_user_ranks(session.folder / RANKS, found, config.data.store, manifest, protocol)

    on_rank_zero(write, control_group())  # it may take longer than a collective waits


def forget_best(session: Session, progress: RunProgress, why: str) -> None:
    """The best model is gone or damaged: the next one that is validated takes its place."""
    progress.forget_best()
    session.say(f"warning: {why}; the next validated model takes its place")


def restore_best(
    session: Session,
    state: TrainState,
    progress: RunProgress,
    checkpointer: DiskCheckpointer,
    validator: Validator,
) -> None:
    """Load the best model; where it is damaged, the last one is validated and takes its place. Collective."""
    try:
        checkpointer.restore_best(state)
    except DataError as error:  # on every rank
        forget_best(session, progress, str(error))
        checkpointer.restore_latest(state)
        state.adopt_average()
        progress.record_validation(state.step, validator.quality(state), validator.metric)
        validator.keep_best(state.step)
        checkpointer.save_best(state, progress)
        checkpointer.wait()


def holds_out(session: Session) -> bool:
    """Whether the run has events that it is not trained on."""
    return session.config.data.split is not Split.NONE


def has_final(session: Session) -> bool:
    """Whether the run has its final model. Collective."""
    return from_rank_zero(lambda: (session.folder / CHECKPOINTS / FINAL / PROGRESS).is_file())


def _summary_of(session: Session, step: int) -> Summary | None:
    """The summary of the run after ``step``, on rank 0; None where it is of another step, damaged or not there: it is
    written again."""
    path = Path(session.folder) / SUMMARY
    if not path.is_file():
        return None
    try:
        summary = read_json(path)
    except DataError as error:
        print(f"warning: {error}; the test events are ranked again", flush=True)
        return None
    return summary if summary.get("steps") == step else None
