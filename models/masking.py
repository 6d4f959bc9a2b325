"""Which events of a training batch are hidden and predicted, for encoders that look at both sides.

T events in the batch, B histories.
"""

import torch
from torch import Tensor

from configs.schema.model import Masking
from data_pipeline.batch import SequenceBatch

WORD = 2**32 - 1
"""Random words have 32 bits, in int64: no product below reaches the sign, so every device has the same ones."""
ONLY_LAST = 0x5BD1E995
"""Tells the draw of a sequence from those of its events."""


def hidden_events(batch: SequenceBatch, masking: Masking, *, seed: int, step: int) -> Tensor:
    """Whether each event is hidden, bool ``[T]``: at least one of every history, none of a history of one event.

    A function of (seed, step, user, first event, place in the history): neither the number of ranks nor the order
    in the batch matters. No wait for the device.
    """
    lengths, device = batch.lengths, batch.item.device
    users = torch.arange(len(lengths), device=device)
    owner = torch.repeat_interleave(users, lengths, output_size=batch.num_tokens)
    first = torch.cumsum(lengths, 0) - lengths
    place = torch.arange(batch.num_tokens, device=device) - first[owner]
    is_last = place == (lengths - 1)[owner]
    first_item = torch.nn.functional.pad(batch.item, (0, 1))[first]  # a user may have several sequences in a step
    sequence = _mixed(_mixed(_seeded(seed, step, device) ^ batch.user & WORD) ^ first_item & WORD)
    is_drawn = _mixed(sequence[owner] ^ place) <= masking.fraction * WORD
    num_drawn = torch.zeros_like(lengths).index_add_(0, owner, is_drawn.long())
    only_last = (_mixed(sequence ^ ONLY_LAST) < masking.last_fraction * WORD) | (num_drawn == 0)
    return torch.where(only_last[owner], is_last, is_drawn) & (lengths > 1)[owner]


def _seeded(seed: int, step: int, device: torch.device) -> Tensor:
    words = [torch.tensor(value & WORD, device=device) for value in (seed, step)]
    return _mixed(_mixed(words[0]) ^ words[1])


def _mixed(word: Tensor) -> Tensor:
    """A permutation of 32-bit words; each bit depends on all others (hash-prospector's ``hash32``, 2018)."""
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & WORD
    word = ((word ^ (word >> 15)) * 0x735A2D97) & WORD
    return word ^ (word >> 15)
