"""``python -m train.evaluate run_dir=R``: exact ranking of a run's best checkpoint; writes ``R/evaluation.json``.

With ``data.store`` or ``data.version`` the model is ranked on other events, newer ones above all.
"""

import errno
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from configs.errors import ConfigError, DataError, exit_code_of
from configs.run_dir import READER, local_run_dir
from configs.schema import RefitOn, RunConfig
from data_pipeline.split import Subset, split_rule
from data_pipeline.store.id_map import dense_ids, raw_items, raw_users
from data_pipeline.store.manifest import Manifest, identity_digests
from train.build import build_state
from train.checkpoint.model_to_ship import model_to_evaluate
from train.checkpoint.reading import checkpoints_of
from train.distributed.collectives import (
    ProcessGroupCollectives,
    control_group,
    from_rank_zero,
    on_rank_zero,
    process_group,
)
from train.distributed.heartbeat import heartbeating
from train.evaluation.details import details_of
from train.evaluation.item_models import require_room
from train.evaluation.other_store import KnownIds, target_ranks_elsewhere
from train.evaluation.preflight import Evaluated, evaluated, evaluated_run, keys_of
from train.evaluation.summary import Summary, print_quality, quality_report, report_of_ranks, write_summary
from train.evaluation.target_recorder import TargetRecorder
from train.evaluation.trained_events import num_trained_targets, trained_events
from train.evaluation.user_ranks import RANKS_OF_EVALUATION, RankedTargets, protocol_of, write_user_ranks
from train.progress import RunProgress
from train.run_dir.known_ids import refuse_unknown_items
from train.state import TrainState
from train.supervision.process_exit import run_and_exit
from train.supervision.watchdog import Watchdog

EVALUATION = "evaluation.json"


def evaluate(config: RunConfig, typed: Collection[str] = ()) -> None:
    """Rank test events with a model of the run in ``config.run_dir``; ``typed``: the keys of ``config`` that a person
    has set, by which other events than the run's own may be meant. Collective."""
    asked = evaluated(config, typed)
    config = asked.config
    with process_group(config.hardware) as device, Watchdog(config.hardware) as watchdog:
        of_model, manifest = asked.of_model()
        require_room(config.evaluation, manifest.num_items)
        state = build_state(of_model, manifest, 1, ProcessGroupCollectives(), device, held_out=None)
        with checkpoints_of(config, watchdog.heartbeat) as checkpointer:
            name = model_to_evaluate(checkpointer, config.checkpoint.use)
            progress = checkpointer.restore(name, state)
        if asked.source is None:
            on_rank_zero(lambda: _refuse_trained_events(config, progress))
            recorder = TargetRecorder(state.collectives.rank)
            report = quality_report(state, config, manifest, watchdog.heartbeat, recorder=recorder)
            targets = recorder.targets()
        else:
            report, targets = _report_elsewhere(asked, asked.source, state, progress, watchdog.heartbeat)
        if targets is not None:
            print_quality(report)
            folder = local_run_dir(config, READER)
            is_kept = _is_kept(report | {"checkpoint": name, "step": state.step}, folder / EVALUATION, config.run_dir)
            if is_kept:
                with heartbeating(watchdog.heartbeat):
                    _keep_ranks(folder / RANKS_OF_EVALUATION, targets, asked, state.step)
                if checkpointer.sync is not None:
                    for written in (EVALUATION, RANKS_OF_EVALUATION):
                        (checkpointer.sync.remote.place / written).send(folder / written)


def _is_kept(report: Summary, path: Path, run_dir: str) -> bool:
    """Write ``report``; False, and said, in a folder that is for reading alone. Raises :class:`DataError`."""
    try:
        write_summary(report, path)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            print(
                f"note: run_dir={run_dir} cannot be written, so {path.name} does not hold these figures", flush=True
            )
            return False
        raise DataError(
            f"run_dir={run_dir}: {path.name} does not hold these figures ({error.strerror}); evaluate again once "
            f"it can be written"
        ) from error
    return True


def _keep_ranks(path: Path, targets: RankedTargets, asked: Evaluated, step: int) -> None:
    """Raises :class:`DataError` where there is no room for them."""
    config, manifest = asked.config, asked.manifest
    try:
        ranked = {Subset.TEST.value: targets}
        write_user_ranks(path, ranked, config.data.store, manifest, protocol_of(config, manifest, step))
    except OSError as error:
        raise DataError(f"run_dir={config.run_dir}: {path.name} cannot be written ({error.strerror})") from error


def _report_elsewhere(
    asked: Evaluated,
    source: tuple[str, Manifest],
    state: TrainState,
    progress: RunProgress,
    heartbeat: Callable[[], None],
) -> tuple[Summary, RankedTargets | None]:
    """Quality on the events of another store or version, and what the model does not know of them; and where each
    target stands, on rank 0. Collective."""
    config = asked.config
    on_rank_zero(lambda: print(_line(asked, source), flush=True))
    known = from_rank_zero(lambda: _known_ids(asked, source, progress, heartbeat), control_group())
    found = target_ranks_elsewhere(state, config, asked.manifest, known, Subset.TEST)
    if not found.ranks.size:
        raise DataError(
            f"data.store={config.data.store} has no test target under data.split={config.data.split.value}; choose "
            f"another split"
        )
    if found.targets is None:
        return {}, None
    data = {key.removeprefix("data."): digest for key, digest in identity_digests(asked.manifest).items()}
    report = report_of_ranks(found.ranks, config, heartbeat, num_unranked=found.num_unranked)
    with heartbeating(heartbeat):
        report |= details_of(found.targets, config, asked.manifest)
    report |= {
        "data": {"store": config.data.store, "version": asked.manifest.version, **data},
        "split": config.data.split.value,
        "trained_on": {"store": source[0], "version": source[1].version, "fingerprint": source[1].fingerprint},
        "not_known": found.misses,
    }
    return report, found.targets


def _line(asked: Evaluated, source: tuple[str, Manifest]) -> str:
    return (
        f"note: events of data.store={asked.config.data.store}, version {asked.manifest.version}, not those that "
        f"{asked.run.shown} learnt from ({source[0]}, version {source[1].version}); items and users are matched by "
        f"raw id, and an item that the model does not know is a miss"
    )


def _known_ids(
    asked: Evaluated, source: tuple[str, Manifest], progress: RunProgress, heartbeat: Callable[[], None]
) -> KnownIds:
    """On rank 0. Raises :class:`ConfigError` where the model was trained on some of the targets."""
    config, manifest = asked.config, asked.manifest
    with heartbeating(heartbeat):
        item = dense_ids(raw_items(config.data.store, manifest), raw_items(*source))
        refuse_unknown_items(asked.run, item, config.data.store)
        user = dense_ids(raw_users(config.data.store, manifest), raw_users(*source))
        _refuse_trained_targets(asked, source, progress, KnownIds(item, user, source[1].num_items))
    return KnownIds(item, user, source[1].num_items)


def _refuse_trained_targets(
    asked: Evaluated, source: tuple[str, Manifest], progress: RunProgress, known: KnownIds
) -> None:
    config = asked.config
    trained = trained_events(asked.run.config, source, progress)
    targets = (config.data.store, asked.manifest, split_rule(config.data, asked.manifest))
    num_trained = num_trained_targets(trained, targets, Subset.TEST, known.item, known.user)
    if num_trained:
        raise ConfigError(
            f"{num_trained} test targets of data.store={config.data.store} are events that the model of "
            f"{asked.run.shown} was trained on, so that ranking them says nothing; rank events after "
            f"{_date(source[1].last_time_ms)}, by data.split=global_time data.global_time_valid=DATE "
            f"data.global_time_test=DATE, or the selected model, by checkpoint.use=best"
        )


def _refuse_trained_events(config: RunConfig, progress: RunProgress) -> None:
    """Raise :class:`ConfigError` where the model was trained on the test events of the run."""
    if progress.refit_on == RefitOn.EVERYTHING.value:
        raise ConfigError(
            f"checkpoint.use=final: the final model of run_dir={config.run_dir} was trained on the test events too "
            f"(train.refit_on=everything), so that ranking them says nothing; leave checkpoint.use out to rank the "
            f"selected model, or name newer events by data.store"
        )


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def main(overrides: Sequence[str]) -> int:
    """``overrides`` name the ``run_dir`` and what may differ from the run's own config; 0, or 2 after one line."""
    return exit_code_of(lambda: evaluate(evaluated_run(overrides), keys_of(overrides)))


if __name__ == "__main__":
    run_and_exit(lambda: main(sys.argv[1:]))
