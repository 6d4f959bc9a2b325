"""Test, then train: each window is added to the store, scored with the models of before, and then trained on.

Everything is done by what does it for a user: `prepare`, `evaluate` and `train`, on the ranks that are here.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from configs.atomic_files import read_json
from configs.load import load_config
from configs.schema import RunConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.publish import is_store
from data_pipeline.prepare.windows import CUT, Cut, cut_log
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest, load_manifest
from data_pipeline.stream.sequence_stream import evaluation_batches
from train.distributed.collectives import control_group, from_rank_zero, groups_freed, is_rank_zero, process_group
from train.distributed.heartbeat import heartbeating
from train.evaluate import EVALUATION, evaluate
from train.evaluation.preflight import evaluated_run, keys_of
from train.finish import SUMMARY
from train.follow.disk import remove_older
from train.follow.folder import open_folder, read_rows, write_row
from train.follow.journey import FIRST, LOG, NOT_UPDATED, Journey, time_text
from train.follow.table import line_of, write_table
from train.run import run
from train.run_dir.identity import STOPPED, mark_stopped
from train.run_dir.writer import writing_run
from train.supervision.watchdog import Watchdog

Value = TypeVar("Value")
TOLD = "follow.log"
"""What the verbs say of each window, in the folder of a follow."""


def follow(config: RunConfig, words: list[str]) -> int:
    """Go through the windows of ``config.data.log`` from where ``run_dir`` stands; ``words``: those of ``config``.

    Returns 0, or after a stop signal in a training the exit code that means "start me again". Collective.
    """
    with process_group(config.hardware), writing_run(config, lambda: None):
        cut = _alone(config, lambda: _begin(config))
        journey = Journey(config, words, cut)
        _say(_line_of(journey))
        code = _first_model(journey)
        num_done = 0 if code else _alone(config, lambda: _tell_done(journey))
        for window in range(num_done + 1, journey.num_windows + 1):
            with groups_freed():
                code = code or _follow_window(journey, window)
            if code:
                break
        if code:
            _alone(config, lambda: mark_stopped(journey.folder, 0))
            _say(f"stopped, saved; the same command with run_dir={config.run_dir} continues")
            return code
        _alone(config, lambda: write_table(journey, read_rows(journey.folder, journey.num_windows)))
    return 0


def _begin(config: RunConfig) -> Cut:
    """Open the folder, and cut the log where that was not done."""
    folder = open_folder(config)
    (folder / STOPPED).unlink(missing_ok=True)
    if not (folder / LOG / CUT).is_file():
        print(f"cutting data.log={config.data.log} by the {config.follow.window.value}", flush=True)
    return cut_log(config.data, config.follow, folder / LOG, ProgressReporter(lambda line: print(line, flush=True)))


def _first_model(journey: Journey) -> int:
    _add(journey, 0)
    with groups_freed(), _quietly(journey):
        return _train(journey.first_words())


def _tell_done(journey: Journey) -> int:
    rows = read_rows(journey.folder, journey.num_windows)
    for row in rows:
        print(line_of(journey, row), flush=True)
    return len(rows)


def _follow_window(journey: Journey, window: int) -> int:
    """Score ``window``, train what is due after it, and keep what came of it; the exit code. Collective."""
    row: dict[str, Any] = {"window": window, "start": time_text(journey.cut.start_ms(window))}
    row |= {"end": time_text(journey.cut.start_ms(window + 1)), **_add(journey, window)}
    with _quietly(journey):
        row["quality"] = _quality(journey, window)
        row["updates"] = {}
        for model, every in journey.models.items():
            if window not in journey.updates(every, window):
                continue
            if code := _train(journey.update_words(model, window)):
                return code
            row["updates"][model] = _cost_of(journey.run_dir(journey.run_of(model, window)))
    _alone(journey.config, lambda: _keep(journey, window, row))
    return 0


def _add(journey: Journey, window: int) -> dict[str, int]:
    """Add ``window`` to the store; its counts. Collective."""
    if not journey.has_events(window):
        return {"events": 0, "new_users": 0, "new_items": 0}

    def add() -> tuple[int, int]:
        config, version = journey.prepare_config(window), journey.version(window)
        if not _is_there(config.store, version):
            prepare(config, id_types=journey.cut.types())
        manifest = load_manifest(config.store, version)
        before = load_manifest(config.store, version - 1) if version > 1 else None
        return _growth(manifest, before)

    new_users, new_items = _alone(journey.config, add)
    return {"events": journey.cut.num_events[window], "new_users": new_users, "new_items": new_items}


def _is_there(store: str, version: int) -> bool:
    return is_store(Path(store)) and load_manifest(store).version >= version


def _growth(manifest: Manifest, before: Manifest | None) -> tuple[int, int]:
    if before is None:
        return manifest.num_users, manifest.num_items
    return manifest.num_users - before.num_users, manifest.num_items - before.num_items


def _quality(journey: Journey, window: int) -> dict[str, Any]:
    """What ``shardrec evaluate`` finds of each model on ``window``, by its name; nothing where nobody is ranked.
    Collective."""
    if not journey.has_events(window) or not _has_targets(journey, window):
        return {}
    runs = {model: journey.run_of(model, window - 1) for model in journey.models}
    found: dict[str, Any] = {}
    for name in dict.fromkeys(runs.values()):
        words = journey.scoring_words(name, window)
        evaluate(evaluated_run(words), keys_of(words))
        if is_rank_zero():
            found[name] = read_json(Path(journey.run_dir(name)) / EVALUATION)
    return {model: _figures(found[name], name) for model, name in runs.items()} if found else {}


def _has_targets(journey: Journey, window: int) -> bool:
    """Whether a user with a history has an event in ``window``: a pure function of the store."""
    data = evaluated_run(journey.scoring_words(FIRST, window)).data
    return (
        next(evaluation_batches(data, Subset.TEST, batch_size=1, rank=0, world_size=1, features=()), None) is not None
    )


def _figures(report: dict[str, Any], name: str) -> dict[str, Any]:
    names = ("test", "test_ci95", "num_test_users", "num_seen_test_targets", "baselines", "not_known")
    return {"run": name, **{each: report[each] for each in names}}


def _train(words: list[str]) -> int:
    """Train a run to its end, or go on with it; a finished one is left as it is. Collective."""
    return run(load_config(words), words)


def _cost_of(run_dir: str) -> dict[str, float]:
    """Of a finished run, on rank 0."""
    if not is_rank_zero():
        return {}
    cost = read_json(Path(run_dir) / SUMMARY)["cost"]
    return {"device_s": cost["device_hours"] * 3600, "usd": cost["usd"], "kwh": cost["kwh"]}


def _keep(journey: Journey, window: int, row: dict[str, Any]) -> None:
    write_row(journey.folder, window, row)
    print(line_of(journey, row), flush=True)
    with _quietly(journey):
        for line in remove_older(journey, window):
            print(line, flush=True)


def _line_of(journey: Journey) -> str:
    cut, follow = journey.cut, journey.config.follow
    models = ", ".join(name for name in journey.models if name != NOT_UPDATED)
    filtered = f", {cut.rows_filtered:,} filtered" if cut.rows_filtered else ""
    bad = f", {sum(cut.rows_quarantined.values()):,} broken" if cut.rows_quarantined else ""
    return (
        f"{cut.rows_read:,} rows{filtered}{bad}; the first model learns from {cut.num_events[0]:,} events before "
        f"{time_text(cut.first_start_ms)}; then {journey.num_windows} windows by the {follow.window.value}: {models} "
        f"beside the first model"
    )


def _alone(config: RunConfig, action: Callable[[], Value]) -> Value:
    """What ``action`` gives on rank 0, on every rank, however long it takes. Collective."""
    with groups_freed(), Watchdog(config.hardware) as watchdog:

        def beating() -> Value:
            with heartbeating(watchdog.heartbeat):
                return action()

        return from_rank_zero(beating, control_group())


@contextlib.contextmanager
def _quietly(journey: Journey) -> Iterator[None]:
    """What the verbs print goes to a file: of a window, its row is told."""
    with (journey.folder / TOLD).open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def _say(line: str) -> None:
    if is_rank_zero():
        print(line, file=sys.stdout, flush=True)
