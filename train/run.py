"""Composition root of a run: builds its parts in order, trains, ranks the test events once, writes the summary."""

import errno
from collections.abc import Callable, Sequence
from contextlib import closing

import torch
import torch.distributed as dist

from configs.atomic_files import read_json
from configs.errors import REQUEUE_EXIT_CODE, ConfigError, DataError, exit_code_of
from configs.load import load_config
from configs.run_dir import describe_run_dir, local_run_dir
from configs.schema import DataConfig, LongHistories, RunConfig, UserInput
from data_pipeline.store.features import chosen_features
from data_pipeline.store.manifest import Manifest, identity_digests, item_counts, load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from models.recommender import Recommender
from models.tables import build_tables
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import (
    ProcessGroupCollectives,
    control_group,
    from_rank_zero,
    on_rank_zero,
    process_group,
)
from train.evaluation.ending import ending_of
from train.evaluation.protocol import Validator, require_targets
from train.evaluation.ranking import StopRequested
from train.evaluation.split_report import split_report
from train.evaluation.summary import Summary, print_table, summarise, write_summary
from train.loop import Outcome, train
from train.metrics_logger import RunTracker
from train.nonfinite import NonFiniteFilter
from train.objective import build_objective
from train.optimizer import Schedule, build_optimizer, fuse_table_optimizer
from train.progress import RunProgress
from train.run_dir.identity import mark_stopped, open_run_folder
from train.run_dir.store_version import at_version, manifest_of_run, pin
from train.run_dir.sync import RunSync, synced_run
from train.run_dir.writer import writing_run
from train.sharding import dense_parameters, placement_of, shard
from train.state import TrainState
from train.supervision.stop_signals import StopVote
from train.supervision.watchdog import Watchdog


def run(config: RunConfig, overrides: Sequence[str]) -> int:
    """Train ``config`` to its end, resuming what ``run_dir`` holds, and write ``summary.json``. Collective.

    Returns 0, or after a stop signal, with the run saved, the exit code that means "start me again".
    """
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
        collectives = ProcessGroupCollectives()
        on_rank_zero(lambda: open_run_folder(config, overrides, identity_digests(manifest), collectives.world_size))
        if sync is not None:
            sync.send_records()
        stream = _stream(config, collectives)
        num_steps = config.num_steps or config.num_epochs * stream.steps_per_epoch
        state = build_state(config, manifest, num_steps, collectives, device)
        watchdog.follow(lambda: state.step)
        with (
            _checkpointer(config, watchdog, sync, check_writer) as checkpointer,
            _tracker(config, state, progress := checkpointer.restore_latest(state), num_steps) as tracker,
        ):
            if _is_finished(config, state, progress, num_steps):
                return 0
            if progress.best_step and not checkpointer.has_best():
                _forget_best(state, progress, f"{config.run_dir}/checkpoints/best is gone")
            if collectives.rank == 0:
                print(_run_banner(config, state, manifest, num_steps), flush=True)
            every_steps = config.evaluation.every_steps or config.evaluation.every_epochs * stream.steps_per_epoch
            validator = Validator(config, manifest.num_items, every_steps, lambda: stop.is_requested)
            outcome, progress = _train(
                config, state, stream, progress, num_steps, stop, tracker, checkpointer, validator
            )
            tracker.account(progress)
            checkpointer.save(state, progress)
            checkpointer.wait()
            if outcome is Outcome.STOPPED:
                return _stopped(config, state, sync)
            return _finish(state, config, manifest, progress, checkpointer, sync, validator, watchdog, check_writer)


def _train(
    config: RunConfig,
    state: TrainState,
    stream: SequenceStream,
    progress: RunProgress,
    num_steps: int,
    stop: StopVote,
    tracker: RunTracker,
    checkpointer: DiskCheckpointer,
    validator: Validator,
) -> tuple[Outcome, RunProgress]:
    """Train, again from the last checkpoint where the run diverged, until it is trained or stopped. Collective."""
    while True:
        try:
            with closing(stream.batches(start=state.step)) as batches:
                outcome = train(
                    state,
                    batches,
                    progress,
                    num_steps=num_steps,
                    patience=config.evaluation.patience,
                    nonfinite=config.nonfinite,
                    is_stop_agreed=stop.is_agreed,
                    tracker=tracker,
                    checkpointer=checkpointer,
                    validator=validator,
                )
        except StopRequested:  # in a validation, with which the next start begins
            outcome = Outcome.STOPPED
        if outcome is not Outcome.DIVERGED:
            return outcome, progress
        progress = roll_back(state, progress, checkpointer, config)


def _checkpointer(
    config: RunConfig, watchdog: Watchdog, sync: RunSync | None, check_writer: Callable[[], None]
) -> DiskCheckpointer:
    return DiskCheckpointer(local_run_dir(config), config.checkpoint, watchdog.heartbeat, sync, check_writer)


def _stream(config: RunConfig, collectives: ProcessGroupCollectives) -> SequenceStream:
    """The batches of this rank."""
    rank, world_size, features = collectives.rank, collectives.world_size, config.model.event_features
    return SequenceStream(config.data, seed=config.seed, rank=rank, world_size=world_size, features=features)


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


def build_state(
    config: RunConfig, manifest: Manifest, num_steps: int, collectives: ProcessGroupCollectives, device: torch.device
) -> TrainState:
    """The model on its ranks at step 0; the same weights at any world size and under any plan. Collective."""
    torch.manual_seed(config.seed)  # the dense part starts alike on every rank
    num_users = 0 if config.model.user_input is UserInput.NONE else manifest.num_users
    tables = build_tables(manifest.num_items, num_users, config.model.embedding_dim)
    features = chosen_features(config.data.store, manifest.features, config.model.event_features)
    num_codes = {name: feature.num_codes for name, feature in features.items()}
    model = Recommender(config.model, tables, config.data.max_history, num_codes)
    fuse_table_optimizer(model, config)
    sharded = shard(model, config, device)
    optimizer = build_optimizer(sharded, config)
    objective = build_objective(
        config.loss, item_counts(config.data.store, manifest), config.seed, collectives, device
    )
    schedule = Schedule(optimizer, config.optimizer, num_steps)
    nonfinite = NonFiniteFilter(list(dense_parameters(sharded).values()), collectives)
    model.nonfinite = nonfinite
    return TrainState(
        sharded, optimizer, schedule, objective, nonfinite, collectives, device, config.seed, config.optimizer.table
    )


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


def main(overrides: Sequence[str]) -> int:
    """Entry of ``python -m train``: 0, 2 after one line on stderr for what a person can mend, 75 after a stop."""
    return exit_code_of(lambda: _run_on_disk(load_config(overrides), overrides))


def _run_on_disk(config: RunConfig, overrides: Sequence[str]) -> int:
    """:func:`run`, with a full disk told as one; only rank 0 knows where its own small files do not fit."""
    try:
        return run(config, overrides)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigError(
            f"{describe_run_dir(config)}: {error.strerror}; make room and start the same command again"
        ) from error


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


def _tracker(config: RunConfig, state: TrainState, progress: RunProgress, num_steps: int) -> RunTracker:
    folder, every_steps = local_run_dir(config), config.log_every_steps
    return RunTracker(folder, progress, config.hardware, every_steps=every_steps, num_steps=num_steps, state=state)


def _stopped(config: RunConfig, state: TrainState, sync: RunSync | None) -> int:
    """Say how to go on, and leave a mark for launchers that do not see exit codes."""
    if state.collectives.rank == 0 or (sync is not None and sync.is_node_leader):
        mark_stopped(local_run_dir(config), state.step)
    if state.collectives.rank == 0:
        print(f"stopped at step {state.step}, saved; the same command with run_dir={config.run_dir} goes on")
    return REQUEUE_EXIT_CODE


def _is_finished(config: RunConfig, state: TrainState, progress: RunProgress, num_steps: int) -> bool:
    """Whether the run was trained to its end and told; if so its summary is shown again."""
    is_trained = state.step >= num_steps or progress.validations_without_improvement >= config.evaluation.patience
    summary = from_rank_zero(lambda: _summary_of(config, state.step) if is_trained else None)
    if summary is None:
        return False
    if state.collectives.rank == 0:
        print(f"{config.run_dir}/summary.json is there; {ending_of(config, progress, state.step, num_steps)}")
        print_table(summary)
    return True


def _summary_of(config: RunConfig, step: int) -> Summary | None:
    """The summary of the run after ``step``, on rank 0; None where it is of another step, damaged or not there: it is
    written again."""
    path = local_run_dir(config) / "summary.json"
    if not path.is_file():
        return None
    try:
        summary = read_json(path)
    except DataError as error:
        print(f"warning: {error}; the test events are ranked again", flush=True)
        return None
    return summary if summary.get("steps") == step else None


def _forget_best(state: TrainState, progress: RunProgress, why: str) -> None:
    progress.forget_best()
    if state.collectives.rank == 0:
        print(f"warning: {why}; the next validated model takes its place", flush=True)


def _restore_best(
    state: TrainState, progress: RunProgress, checkpointer: DiskCheckpointer, validator: Validator
) -> None:
    """Load the best model; where it is damaged, the last one is validated and takes its place. Collective."""
    try:
        checkpointer.restore_best(state)
    except DataError as error:  # on every rank
        _forget_best(state, progress, str(error))
        checkpointer.restore_latest(state)
        progress.record_validation(state.step, validator.quality(state))
        checkpointer.save_best(state, progress)
        checkpointer.wait()


def _finish(
    state: TrainState,
    config: RunConfig,
    manifest: Manifest,
    progress: RunProgress,
    checkpointer: DiskCheckpointer,
    sync: RunSync | None,
    validator: Validator,
    watchdog: Watchdog,
    check_writer: Callable[[], None],
) -> int:
    """Restore the best model, rank the test events once, write the summary; the exit code. Collective."""
    num_trained = state.step
    if state.collectives.rank == 0:
        print(ending_of(config, progress, num_trained, state.schedule.num_steps), flush=True)
    try:
        _restore_best(state, progress, checkpointer, validator)
        summary = summarise(
            state, config, manifest, progress, num_trained, watchdog.heartbeat, validator.is_stop_requested
        )
    except StopRequested:  # all is saved: the next start ranks and counts
        state.step = num_trained
        return _stopped(config, state, sync)
    if state.collectives.rank == 0:
        check_writer()
        write_summary(summary, local_run_dir(config) / "summary.json")
        print_table(summary)
    return 0
