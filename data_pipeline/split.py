"""Which events of a history are for training, and which one is the target of validation and of test."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, Split
from configs.schema.split import global_time_dates
from data_pipeline.cold_items import cold_items, cold_target_positions, is_for_training
from data_pipeline.store.history_reader import Histories
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.time_boundaries import TimeBoundaries, time_boundaries

MIN_EVENTS_TO_LEAVE_OUT = 3
"""Leave-one-out needs an event to train on, one to validate and one to test."""


class Subset(str, Enum):
    """The targets that are ranked: the earlier ones choose the model, the later ones judge it."""

    VALID = "valid"
    TEST = "test"


class HeldOut(str, Enum):
    """The events that a model is not trained on: of the model that is selected both, of a final fit fewer."""

    VALID_AND_TEST = "valid_and_test"
    TEST = "test"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class SplitRule:
    """A split with its points in time, which are read by ``global_time`` only, and what training leaves out of it."""

    split: Split
    valid_start_ms: int
    test_start_ms: int
    held_out: HeldOut = HeldOut.VALID_AND_TEST
    cold: np.ndarray | None = field(default=None, compare=False)
    """With ``cold_items``, what each item is: :mod:`data_pipeline.cold_items`."""

    @property
    def train_end_ms(self) -> int:
        """With ``global_time``, where training ends."""
        return self.valid_start_ms if self.held_out is HeldOut.VALID_AND_TEST else self.test_start_ms

    @property
    def num_left_out(self) -> int:
        """With ``leave_one_out``, how many of a user's last events are not trained on."""
        return 2 if self.held_out is HeldOut.VALID_AND_TEST else 1


def split_rule(config: DataConfig, manifest: Manifest, held_out: HeldOut = HeldOut.VALID_AND_TEST) -> SplitRule:
    """The rule of ``config`` on the store of ``manifest``, ``config.store``, of a model that leaves out ``held_out``.

    The boundaries of ``global_time`` are dates, or quantiles of the store's events: a few events with a wrong clock
    do not move them. Raises :class:`DataError` where no event lies between them.
    """
    if config.split is Split.NONE:
        held_out = HeldOut.NOTHING
    if config.split is Split.COLD_ITEMS:
        cold = cold_items(config.store, manifest, config.cold_items_fraction, config.cold_items_seed)
        return SplitRule(config.split, 0, 0, held_out, cold)
    if config.split is not Split.GLOBAL_TIME:
        return SplitRule(config.split, 0, 0, held_out)
    if not manifest.has_times:
        raise ConfigError(
            f"data.split=global_time: data.store={config.store} was made of a log without times; set "
            f"data.split=leave_one_out"
        )
    dates = global_time_dates(config)
    if dates is not None:
        return SplitRule(config.split, *dates, held_out)
    valid, test = event_time_boundaries(config, manifest).boundaries
    if valid.time_ms >= test.time_ms:
        raise DataError(
            f"data.store={config.store}: data.global_time_valid_fraction={config.global_time_valid_fraction} and "
            f"data.global_time_test_fraction={config.global_time_test_fraction} fall on one time, which "
            f"{valid.num_tied} of {manifest.num_events} events share, so that nothing is between them; choose "
            f"fractions that are further apart, or dates: data.global_time_valid and data.global_time_test"
        )
    return SplitRule(config.split, valid.time_ms, test.time_ms, held_out)


def event_time_boundaries(config: DataConfig, manifest: Manifest) -> TimeBoundaries:
    """Where ``config``'s fractions of the events lie in time: those of validation and of test."""
    fractions = [config.global_time_valid_fraction, config.global_time_test_fraction]
    return time_boundaries(config.store, manifest, fractions)


def training_view(rule: SplitRule, histories: Histories) -> Histories:
    """``histories`` of which :func:`train_lengths` first events are for training: as they are, but where the split
    holds out items, whose events lie anywhere; then with training events alone."""
    if rule.cold is None:
        return histories
    kept = is_for_training(rule.cold, histories.offsets, histories.item)
    num_kept = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
    return Histories(
        histories.first_user,
        num_kept[histories.offsets],
        histories.item[kept],
        histories.timestamp[kept],
        {name: values[kept] for name, values in histories.features.items()},
    )


def train_lengths(rule: SplitRule, offsets: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    """How many of each user's first events in a :func:`training_view` are for training: int64 [B], from offsets
    [B + 1] and timestamps [T]."""
    lengths = np.diff(offsets)
    if rule.held_out is HeldOut.NOTHING or rule.cold is not None:
        return lengths
    if rule.split is Split.GLOBAL_TIME:
        return _counts_before(rule.train_end_ms, offsets, timestamp)
    return np.where(lengths >= MIN_EVENTS_TO_LEAVE_OUT, lengths - rule.num_left_out, lengths)


def targets_in(rule: SplitRule, subset: Subset, histories: Histories) -> np.ndarray:
    """Place of the target within each of ``histories``, or -1 where the user is not evaluable: int64 [B]."""
    if rule.cold is not None:
        is_test = subset is Subset.TEST
        return cold_target_positions(rule.cold, histories.offsets, histories.item, is_test=is_test)
    return target_positions(rule, subset, histories.offsets, histories.timestamp)


def target_positions(rule: SplitRule, subset: Subset, offsets: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    """As :func:`targets_in`, of splits that look at times and places alone.

    A user is evaluable when it has a target and at least one event before it. Nobody is under ``none``.
    """
    lengths = np.diff(offsets)
    if rule.split is Split.NONE:
        return np.full(len(lengths), -1, np.int64)
    if rule.split is Split.LEAVE_ONE_OUT:
        position = lengths - (2 if subset is Subset.VALID else 1)
        return np.where(lengths >= MIN_EVENTS_TO_LEAVE_OUT, position, -1)
    before_test = _counts_before(rule.test_start_ms, offsets, timestamp)
    if subset is Subset.VALID:
        position, limit = _counts_before(rule.valid_start_ms, offsets, timestamp), before_test
    else:
        position, limit = before_test, lengths
    return np.where((position < limit) & (position >= 1), position, -1)


def lengths_before(rule: SplitRule, subset: Subset | None, offsets: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    """How many of each user's first events come before what ``subset`` ranks, all for None: int64 [B].

    Of a user whom it does not rank: the events that an earlier subset or training has.
    """
    if subset is None:
        return np.diff(offsets)
    if subset is Subset.VALID:
        return train_lengths(rule, offsets, timestamp)
    if rule.split is Split.GLOBAL_TIME:
        return _counts_before(rule.test_start_ms, offsets, timestamp)
    lengths = np.diff(offsets)
    return np.where(lengths >= MIN_EVENTS_TO_LEAVE_OUT, lengths - 1, lengths)


def refuse_future(
    rule: SplitRule, first_user: int, ends: np.ndarray, lengths: np.ndarray, timestamp: np.ndarray
) -> None:
    """Raise :class:`DataError` if training would see an event at or after the split point.

    ``ends`` [B] is the place after each user's last event for training, ``lengths`` [B] the length of the whole
    history, ``timestamp`` [S] the time of the last event of each training sequence.
    """
    if rule.held_out is HeldOut.NOTHING or rule.cold is not None:
        return
    is_selected = rule.held_out is HeldOut.VALID_AND_TEST
    if rule.split is Split.GLOBAL_TIME:
        late = int((timestamp >= rule.train_end_ms).sum())
        boundary = "validation" if is_selected else "test"
        whose, point = "sequences", f"the {boundary} boundary, {rule.train_end_ms} ms"
    else:
        late = int(((lengths >= MIN_EVENTS_TO_LEAVE_OUT) & (ends > lengths - rule.num_left_out)).sum())
        whose, point = "users", "a user's second last event" if is_selected else "a user's last event"
    if late:
        raise DataError(
            f"users {first_user} to {first_user + len(lengths) - 1}: training events of {late} {whose} lie at or "
            f"after the split point ({point}), so that evaluation would leak into training; prepare the store again"
        )


def _counts_before(time_ms: int, offsets: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    counts = np.zeros(len(offsets) - 1, np.int64)
    has_events = offsets[1:] > offsets[:-1]
    if has_events.any():
        counts[has_events] = np.add.reduceat(timestamp < time_ms, offsets[:-1][has_events], dtype=np.int64)
    return counts
