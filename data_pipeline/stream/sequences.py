"""How the training events of a user become sequences, and what those weigh in a step."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from configs.schema import DataConfig, LongHistories
from data_pipeline.stream.jagged import jagged_index

MIN_TRAIN_EVENTS = 2
"""An event to start from and one to predict."""

WeightFn = Callable[[np.ndarray], np.ndarray]
"""From numbers of training events, int [B], to what each user weighs in a step, int64 [B]."""


@dataclass(frozen=True, slots=True)
class SequenceRule:
    """Cuts sequences of at most ``max_history + 1`` events: the latest one of a user, or as many as hold all.

    With ``windows``, the sequences of a user end ``max_history`` events apart, the last at the user's last event for
    training; neighbours share one event, so that each event but the first is predicted once.
    """

    max_history: int
    long_histories: LongHistories

    def num_sequences(self, lengths: np.ndarray) -> np.ndarray:
        """Sequences of users with so many training events: int64 [B]. With ``latest`` 1, of length 0 if need be."""
        if self.long_histories is LongHistories.LATEST:
            return np.ones(len(lengths), np.int64)
        return -(-np.maximum(lengths.astype(np.int64) - 1, 0) // self.max_history)

    def num_tokens(self, lengths: np.ndarray) -> np.ndarray:
        """Events in all sequences of a user: int64 [B]."""
        if self.long_histories is LongHistories.LATEST:
            events = np.minimum(lengths, self.max_history + 1).astype(np.int64)
        else:
            events = lengths + np.maximum(self.num_sequences(lengths) - 1, 0)
        return np.where(lengths >= MIN_TRAIN_EVENTS, events, 0)

    def at_most(self, num_users: int, num_events: int) -> tuple[int, int]:
        """Sequences of so many users who have so many events together, and events in all of them, at most."""
        if self.long_histories is LongHistories.LATEST:
            return num_users, min(num_events, num_users * (self.max_history + 1))
        num_sequences = num_users + num_events // self.max_history
        return num_sequences, num_events + num_sequences

    def cut(self, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row, start, length) of every sequence, from first places and numbers of training events [B].

        ``row`` says whose the sequence is; a user's oldest sequence comes first. All int64.
        """
        if self.long_histories is LongHistories.LATEST:
            cut = np.minimum(lengths, self.max_history + 1)
            cut[lengths < MIN_TRAIN_EVENTS] = 0
            return np.arange(len(lengths)), starts + lengths - cut, cut
        num_sequences = self.num_sequences(lengths)
        row = np.repeat(np.arange(len(lengths)), num_sequences)
        from_last = num_sequences[row] - 1 - jagged_index(np.zeros_like(num_sequences), num_sequences)
        ends = lengths[row] - from_last * self.max_history
        cut = np.minimum(ends, self.max_history + 1)
        cut[ends < MIN_TRAIN_EVENTS] = 0
        return row, starts[row] + ends - cut, cut


def sequence_rule(config: DataConfig) -> SequenceRule:
    """The rule of ``config``."""
    return SequenceRule(config.max_history, LongHistories(config.long_histories))
