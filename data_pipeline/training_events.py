"""The events that a model may learn from, and how many each item has of them: no held-out event is counted.

T events of some users, V items.
"""

import numpy as np

from data_pipeline.cold_items import is_for_training
from data_pipeline.split import HeldOut, SplitRule, train_lengths
from data_pipeline.store.history_reader import Histories, history_chunks
from data_pipeline.store.manifest import Manifest, item_counts


def is_training_event(rule: SplitRule, chunk: Histories) -> np.ndarray:
    """bool [T]: whether each event of ``chunk`` is for training."""
    if rule.cold is not None:
        return is_for_training(rule.cold, chunk.offsets, chunk.item)
    user = user_of_event(chunk.offsets)
    num_training = train_lengths(rule, chunk.offsets, chunk.timestamp)
    return np.arange(len(chunk.item)) - chunk.offsets[user] < num_training[user]


def user_of_event(offsets: np.ndarray) -> np.ndarray:
    """int64 [T]: the place of each event's user, of offsets [B + 1]."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def training_items(rule: SplitRule, chunk: Histories) -> tuple[np.ndarray, np.ndarray, int]:
    """Each user's distinct training items: users, as places in ``chunk``, and items [S], ascending by both, and the
    number of users."""
    training = is_training_event(rule, chunk)
    user, item = user_of_event(chunk.offsets)[training], chunk.item[training].astype(np.int64)
    num_items = int(item.max(initial=0)) + 1
    pairs = np.unique(user * num_items + item)
    return pairs // num_items, pairs % num_items, len(chunk.offsets) - 1


def training_label_sum(
    store: str, manifest: Manifest, rule: SplitRule, label: str, part: int = 0, num_parts: int = 1
) -> tuple[float, int]:
    """The sum of feature ``label``, a number, over the training events of one ``part`` of ``num_parts`` of the users,
    and how many events that is. Raises :class:`DataError`."""
    total, count = 0.0, 0
    for chunk in history_chunks(store, manifest, part=part, num_parts=num_parts, features=(label,)):
        values = chunk.features[label][is_training_event(rule, chunk)]
        total, count = total + float(values.sum(dtype=np.float64)), count + len(values)
    return total, count


def training_item_counts(
    store: str, manifest: Manifest, rule: SplitRule, part: int = 0, num_parts: int = 1
) -> np.ndarray:
    """Training events of every item, int64 [V], among the users of one ``part`` of ``num_parts``.

    The sum over the parts is that of all users. Reads the histories once. Raises :class:`DataError`.
    """
    if rule.held_out is HeldOut.NOTHING:
        whole = item_counts(store, manifest)
        return whole if part == 0 else np.zeros_like(whole)
    counts = np.zeros(manifest.num_items, np.int64)
    for chunk in history_chunks(store, manifest, part=part, num_parts=num_parts):
        counts += np.bincount(chunk.item[is_training_event(rule, chunk)], minlength=manifest.num_items)
    return counts
