"""Items that a split holds out as a whole: which, and what that leaves of histories for training and for ranking.

V items, B users with T events.
"""

import hashlib

import numpy as np

from data_pipeline.store.manifest import Manifest, item_table

WARM, COLD_IN_VALID, COLD_IN_TEST = 0, 1, 2
"""An item with training events, one that is a target of validation, one of the test."""
MIN_WARM_EVENTS = 3
"""Of a user whose last events of warm items are targets, too: one trains, one validates, one tests."""


def cold_items(store: str, manifest: Manifest, fraction: float, seed: int) -> np.ndarray:
    """What each item is, int8 [V]: a function of its raw id and ``seed``, whatever else is in the store."""
    raw = item_table(store, manifest, ["raw_item"]).column("raw_item").to_pylist()
    draws = np.array([_uniform(f"{seed}:{item}") for item in raw])
    return np.select([draws < fraction / 2, draws < fraction], [COLD_IN_TEST, COLD_IN_VALID], WARM).astype(np.int8)


def _uniform(text: str) -> float:
    """In [0, 1), by the characters alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") / 2**64


def is_for_training(cold: np.ndarray, offsets: np.ndarray, item: np.ndarray) -> np.ndarray:
    """bool [T]: events of warm items but for the last two of each user who has three."""
    is_warm, from_end, num_warm = _warm_events(cold, offsets, item)
    return is_warm & ~((from_end <= 2) & (num_warm >= MIN_WARM_EVENTS))


def cold_target_positions(cold: np.ndarray, offsets: np.ndarray, item: np.ndarray, *, is_test: bool) -> np.ndarray:
    """Place of the target within each history, -1 where there is none: int64 [B].

    The last event of an item that is cold for this subset and has an event before it; of a user without one the last
    event of a warm item, the second last in validation.
    """
    is_warm, from_end, num_warm = _warm_events(cold, offsets, item)
    is_warm_target = is_warm & (from_end == (1 if is_test else 2)) & (num_warm >= MIN_WARM_EVENTS)
    position = _last_place(is_warm_target, offsets)
    last_cold = _last_place(cold[item] == (COLD_IN_TEST if is_test else COLD_IN_VALID), offsets)
    return np.where(last_cold >= 1, last_cold, position)


def _warm_events(
    cold: np.ndarray, offsets: np.ndarray, item: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each event [T] whether its item is warm, its number among the user's warm ones from the end, the last one
    being 1, and how many of these the user has."""
    is_warm = cold[item] == WARM
    before = np.concatenate([[0], np.cumsum(is_warm)])
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    num_warm = before[offsets[1:]] - before[offsets[:-1]]
    return is_warm, before[offsets[1:]][user] - before[:-1], num_warm[user]


def _last_place(is_wanted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The place of the last wanted event in each history, -1 where there is none: int64 [B]."""
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    found = np.full(len(offsets) - 1, -1, np.int64)
    events = np.flatnonzero(is_wanted)
    found[user[events]] = events - offsets[user[events]]  # of several the last one stays
    return found
