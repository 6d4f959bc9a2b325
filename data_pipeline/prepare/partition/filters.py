"""Stage 2, where it is asked for: duplicates out, then the k-core, a range of users at a time."""

from pathlib import Path

import numpy as np
import polars as pl

from data_pipeline.prepare.partition.sorting import in_order, run_lengths
from data_pipeline.prepare.partition.spill_files import blocks_of, events_of, num_rows_of, ranges_in, replace_events
from data_pipeline.prepare.progress import ProgressReporter


def move_distinct(source: Path, target: Path, key: list[str], progress: ProgressReporter) -> None:
    """Move every range from folder ``source`` to ``target``, in order, without the later ones of equal events.

    Equal are events with the same in all columns of ``key``. What is left in ``source`` is not done yet.
    """
    target.mkdir(exist_ok=True)
    ranges = ranges_in(source)
    done = sum(map(num_rows_of, ranges_in(target)))
    progress.begin("de-duplicating", done + sum(map(num_rows_of, ranges)), done)
    for path in ranges:
        events = events_of(path)
        if events is not None:
            replace_events(target / path.name, in_order(events).unique(key, keep="first", maintain_order=True))
            progress.advance(len(events))
        path.unlink()


def keep_core(ranges: list[Path], num_items: int, min_user_events: int, min_item_events: int) -> None:
    """Leave users with ``min_user_events`` of items with ``min_item_events``, in turn until none leaves.

    The core is one and the same whatever the order of leaving, so that rounds take the ranges one after another, and
    what a kill has left of a round is where the next prepare begins its first.
    """
    is_kept = _counts_of(ranges, num_items) >= min_item_events
    while True:
        counts = np.zeros(num_items, dtype=np.int64)
        for path in ranges:
            counts += _narrow(path, is_kept, min_user_events)
        is_left = is_kept & (counts >= min_item_events)
        if not (is_kept & ~is_left & (counts > 0)).any():
            return
        is_kept = is_left


def _counts_of(ranges: list[Path], num_items: int) -> np.ndarray:
    counts = np.zeros(num_items, dtype=np.int64)
    for path in ranges:
        for block in blocks_of(path):
            counts += np.bincount(block["item"].to_numpy(), minlength=num_items)
    return counts


def _narrow(path: Path, is_kept: np.ndarray, min_user_events: int) -> np.ndarray:
    """Take kept items, then users with enough of them, in the file as well; returns the events of each item left."""
    events = events_of(path)
    if events is None:
        return np.zeros(len(is_kept), dtype=np.int64)
    left = in_order(events.filter(pl.Series(is_kept[events["item"].to_numpy()])))
    if len(left):
        lengths = run_lengths(left["user"])
        left = left.filter(pl.Series(np.repeat(lengths >= min_user_events, lengths)))
    if len(left) < len(events):
        replace_events(path, left)
    return np.bincount(left["item"].to_numpy(), minlength=len(is_kept))
