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
    def owner(self) -> Tensor:
        """Whose each event is, as a place among the users: int64 [T]; known without a wait for the device."""
        users = torch.arange(len(self.lengths), device=self.item.device)
        return torch.repeat_interleave(users, self.lengths, output_size=self.num_tokens)

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

    def sizes_of_parts(self, num_parts: int) -> list[tuple[int, int]]:
        """Users and events of ``num_parts`` contiguous parts with about as many events each; some may be empty."""
        ends = self.offsets
        edges = torch.arange(1, num_parts) * self.num_tokens / num_parts
        cuts = torch.searchsorted(ends, edges.round().to(ends)).clamp(max=self.num_users)
        users = torch.cat([ends.new_zeros(1), cuts, ends.new_tensor([self.num_users])])
        return list(zip(users.diff().tolist(), ends[users].diff().tolist(), strict=True))

    def split(self, sizes: list[tuple[int, int]]) -> list["SequenceBatch"]:
        """Contiguous parts of so many users and events each, as :meth:`sizes_of_parts` gives them: views."""
        num_users, num_tokens = [users for users, _ in sizes], [tokens for _, tokens in sizes]
        columns = (
            self.item.split(num_tokens),
            self.lengths.split(num_users),
            self.user.split(num_users),
            self.timestamp.split(num_tokens),
        )
        parts = [SequenceBatch(*each) for each in zip(*columns, strict=True)]
        for name, values in self.features.items():
            for part, own in zip(parts, values.split(num_tokens), strict=True):
                part.features[name] = own
        if self.asked_at is not None:
            for part, own in zip(parts, self.asked_at.split(num_users), strict=True):
                part.asked_at = own
        if self.is_hidden is not None:
            for part, own in zip(parts, self.is_hidden.split(num_tokens), strict=True):
                part.is_hidden = own
        return parts

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
    target_features: dict[str, Tensor] = field(default_factory=dict)
    """Further columns of the targets' events by name: codes int64 [B], or numbers float32 [B]."""
    of_store: Tensor | None = None
    """User, target and number of events before it as the store has them, int64 [B, 3], where the fields above are in
    other ids or leave events out; None: they are the same."""

    @property
    def as_stored(self) -> Tensor:
        """``of_store``, whatever the fields above are in: int64 [B, 3]."""
        if self.of_store is not None:
            return self.of_store
        return torch.stack([self.history.user, self.target, self.seen_lengths], 1)

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
            {name: values.to(device, non_blocking=non_blocking) for name, values in self.target_features.items()},
            None if self.of_store is None else self.of_store.to(device, non_blocking=non_blocking),
        )


def offsets_of(lengths: Tensor) -> Tensor:
    """Running sums of int ``lengths`` [B] with a leading zero: int64 [B + 1], on the same device."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
