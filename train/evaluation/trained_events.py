"""Targets that a model was trained on: ranking them would say nothing, so they are counted before anything is ranked.

A target was trained on where the training events of the model hold the same user, item and time; in a log without
times, the same user, item and place in the history.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from configs.schema import RefitOn, RunConfig
from data_pipeline.split import HeldOut, SplitRule, Subset, split_rule, targets_in
from data_pipeline.store.history_reader import Histories, history_chunks
from data_pipeline.store.manifest import Manifest
from data_pipeline.training_events import is_training_event, user_of_event
from train.progress import RunProgress

_EVENT = ["user", "item", "time"]


@dataclass(frozen=True, slots=True)
class TrainedEvents:
    """The events that a model was trained on: those of ``manifest``'s version of ``store`` under ``rule``."""

    store: str
    manifest: Manifest
    rule: SplitRule


def trained_events(run: RunConfig, source: tuple[str, Manifest], progress: RunProgress) -> TrainedEvents:
    """The events that a model of ``run`` was trained on; ``source``: the store and version that it learnt from."""
    store, manifest = source
    held_out = {
        "": HeldOut.VALID_AND_TEST,
        RefitOn.VALIDATION.value: HeldOut.TEST,
        RefitOn.EVERYTHING.value: HeldOut.NOTHING,
    }[progress.refit_on]
    data = replace(run.data, store=store, version=manifest.version)
    return TrainedEvents(store, manifest, split_rule(data, manifest, held_out))


def num_trained_targets(
    trained: TrainedEvents,
    targets: tuple[str, Manifest, SplitRule],
    subset: Subset,
    item: np.ndarray,
    user: np.ndarray,
    heartbeat: Callable[[], None] = lambda: None,
) -> int:
    """How many targets of ``subset`` of a store are events of ``trained``.

    ``item`` and ``user`` give each dense id of the store that of ``trained``, or -1. Reads both stores once; holds
    one row a target. Not collective.
    """
    store, manifest, rule = targets
    has_times = manifest.has_times and trained.manifest.has_times
    chunks = history_chunks(store, manifest, heartbeat)
    found = pl.concat([_targets_in(chunk, rule, subset, item, user, has_times) for chunk in chunks]).sort("user")
    if found.is_empty():
        return 0
    users, num_trained = found["user"].to_numpy(), 0
    for chunk in history_chunks(trained.store, trained.manifest, heartbeat):
        first, end = np.searchsorted(users, [chunk.first_user, chunk.first_user + len(chunk.offsets) - 1]).tolist()
        if first < end:
            events = _training_events(chunk, trained.rule, has_times)
            num_trained += found[first:end].join(events, on=_EVENT, how="semi").height
    return num_trained


def _targets_in(
    chunk: Histories, rule: SplitRule, subset: Subset, item: np.ndarray, user: np.ndarray, has_times: bool
) -> pl.DataFrame:
    position = targets_in(rule, subset, chunk)
    rows = np.flatnonzero(position >= 0)
    at = chunk.offsets[rows] + position[rows]
    time = chunk.timestamp[at] if has_times else position[rows]
    frame = _frame(user[rows + chunk.first_user], item[chunk.item[at]], time)
    return frame.filter((pl.col("user") >= 0) & (pl.col("item") >= 0))


def _training_events(chunk: Histories, rule: SplitRule, has_times: bool) -> pl.DataFrame:
    owner, is_trained = user_of_event(chunk.offsets), is_training_event(rule, chunk)
    time = chunk.timestamp if has_times else np.arange(len(chunk.item)) - chunk.offsets[owner]
    frame = _frame(owner[is_trained] + chunk.first_user, chunk.item[is_trained], time[is_trained])
    return frame.unique()


def _frame(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> pl.DataFrame:
    columns = dict(zip(_EVENT, (user, item, time), strict=True))
    return pl.DataFrame({name: values.astype(np.int64) for name, values in columns.items()})
