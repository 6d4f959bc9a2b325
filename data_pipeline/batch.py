"""What crosses from the data pipeline to the models: histories of several lengths, end to end."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class SequenceBatch:
    """Histories of B users, T events in all, each oldest event first.

    A training batch holds inputs and targets in one: position t of a history predicts the item at t + 1, so a history
    of n events has n - 1 predictions; with ``is_hidden`` it is the hidden events that are predicted. A rank's batch
    may hold no users (B = T = 0).
    """

    item: Tensor
    """Dense item ids, int64 [T]."""
    lengths: Tensor
    """Events of each user, int64 [B]."""
    user: Tensor
    """Dense user ids, int64 [B]."""
    timestamp: Tensor
    """Times of the events in ms, int64 [T]."""
    features: dict[str, Tensor] = field(default_factory=dict)
    """Further columns of the events by name: codes int64 [T], or numbers float32 [T]."""
    asked_at: Tensor | None = None
    """When it is asked what comes after each history, in ms, int64 [B]; None where that is not known, and in
    training."""
    is_hidden: Tensor | None = None
    """Which events are hidden and predicted, bool [T]; None: each one is, from those before it."""

    @property
    def offsets(self) -> Tensor:
        """Where each history starts, and the end: int64 [B + 1]."""
        return offsets_of(self.lengths)

    @property
    def num_users(self) -> int:
        """B."""
        return self.lengths.shape[0]

    @property
    def num_tokens(self) -> int:
        """T, known without a wait for the device."""
        return self.item.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "SequenceBatch":
        """The batch on ``device``."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _mapped(self, function: Callable[[Tensor], Tensor]) -> "SequenceBatch":
        features = {name: function(tensor) for name, tensor in self.features.items()}
        item, lengths, user, timestamp = map(function, self._tensors())
        asked_at = None if self.asked_at is None else function(self.asked_at)
        is_hidden = None if self.is_hidden is None else function(self.is_hidden)
        return SequenceBatch(item, lengths, user, timestamp, features, asked_at, is_hidden)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.item, self.lengths, self.user, self.timestamp


@dataclass(slots=True)
class EvaluationBatch:
    """B users, what each had done before the target, and the target."""

    history: SequenceBatch
    """The last ``max_history`` events before the target."""
    target: Tensor
    """The item to find, int64 [B]."""
    seen: Tensor
    """Items of every event before the target, repeats included, int64 [S]."""
    seen_lengths: Tensor
    """How many of ``seen`` each user has, int64 [B]."""

    @property
    def seen_offsets(self) -> Tensor:
        """Where each user's part of ``seen`` starts, and the end: int64 [B + 1]."""
        return offsets_of(self.seen_lengths)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "EvaluationBatch":
        """The batch on ``device``."""
        return EvaluationBatch(
            self.history.to(device, non_blocking),
            self.target.to(device, non_blocking=non_blocking),
            self.seen.to(device, non_blocking=non_blocking),
            self.seen_lengths.to(device, non_blocking=non_blocking),
        )


def offsets_of(lengths: Tensor) -> Tensor:
    """Running sums of int ``lengths`` [B] with a leading zero: int64 [B + 1], on the same device."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
