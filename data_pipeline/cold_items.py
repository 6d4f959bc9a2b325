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
    kept = cold[item] == WARM
    warm, bounds = _events_by_user(kept, offsets)
    ends = bounds[1:][np.diff(bounds) >= MIN_WARM_EVENTS]
    kept[warm[ends - 1]] = kept[warm[ends - 2]] = False
    return kept


def cold_target_positions(cold: np.ndarray, offsets: np.ndarray, item: np.ndarray, *, is_test: bool) -> np.ndarray:
    """Place of the target within each history, -1 where there is none: int64 [B].

    The last event of an item that is cold for this subset and has an event before it; of a user without one the last
    event of a warm item, the second last in validation.
    """
    what = cold[item]
    from_end, wanted = (1, COLD_IN_TEST) if is_test else (2, COLD_IN_VALID)
    position = _place_from_end(what == WARM, offsets, from_end, at_least=MIN_WARM_EVENTS)
    last_cold = _place_from_end(what == wanted, offsets, 1, at_least=1)
    return np.where(last_cold >= 1, last_cold, position)


def _place_from_end(is_wanted: np.ndarray, offsets: np.ndarray, from_end: int, at_least: int) -> np.ndarray:
    """The place within each history of its wanted event of this number from the end, 1 being the last, and -1 where
    fewer than ``at_least`` are wanted: int64 [B]."""
    wanted, bounds = _events_by_user(is_wanted, offsets)
    has_one = np.diff(bounds) >= at_least
    found = np.full(len(offsets) - 1, -1, np.int64)
    found[has_one] = wanted[bounds[1:][has_one] - from_end] - offsets[:-1][has_one]
    return found


def _events_by_user(is_wanted: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The wanted events [W], ascending, and where those of each user begin among them [B + 1]."""
    wanted = np.flatnonzero(is_wanted)
    return wanted, np.searchsorted(wanted, offsets)
