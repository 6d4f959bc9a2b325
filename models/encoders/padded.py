"""Bases of encoders over padded histories: buckets of like length are made here, only the mathematics is missing.

T tokens in the batch, B histories, b of them in a bucket, L the longest of it, D the width of the model.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from models.attention.bucketed import MAX_BUCKETS, Buckets, bucketed_last_tokens, buckets_of, over_buckets
from models.attention.dispatch import TRAINING_BUCKETS, Layout
from models.encoders.encoder import EncoderFlop, Times, at_last


class BucketedEncoder(nn.Module, ABC):
    """An :class:`Encoder` whose histories are padded at their end, without what makes queries of all tokens."""

    is_causal = True
    reads_time = False

    @abstractmethod
    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """The last query ``[b, D]`` of each history of ``[b, L, D]``, whatever the padding holds."""

    @abstractmethod
    def flop(self, lengths: Tensor) -> EncoderFlop:
        """The arithmetic of a token of histories of ``lengths`` ``[B]``."""

    def layout_of(self, lengths: Tensor, num_tokens: int) -> Layout:
        """The buckets of histories of ``lengths`` ``[B]``."""
        is_training_on_cpu = self.training and lengths.device.type == "cpu"
        return buckets_of(lengths, TRAINING_BUCKETS if is_training_on_cpu else MAX_BUCKETS)

    def last(self, tokens: Tensor, layout: Layout, times: Times | None = None) -> Tensor:
        """The query ``[B, D]`` after the last token of each history, in their order; none of them is empty."""
        assert isinstance(layout, Buckets), "layout_of makes them"
        found = [tokens[:0]]
        for index in layout.buckets:
            rows = tokens.index_select(0, index.view(-1)).view(*index.shape, -1)
            lengths = index[:, -1] - index[:, 0] + 1
            found.append(self.padded_last(rows, lengths, None if times is None else times.at(index)))
        return torch.cat(found)[torch.argsort(bucketed_last_tokens(layout))]


class PaddedEncoder(BucketedEncoder):
    """A causal :class:`Encoder`, once :meth:`padded` and :meth:`flop` are there; histories are padded at the end."""

    @abstractmethod
    def padded(self, tokens: Tensor, times: Times | None) -> Tensor:
        """``[b, L, D]`` to queries ``[b, L, D]``, none of which may look at a later token; so it does not matter what
        the padding holds. ``times`` ``[b, L]`` where it ``reads_time``."""

    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """The last query ``[b, D]`` of each history; override it where the whole pass does more than it needs."""
        return at_last(self.padded(tokens, times), lengths - 1)

    def forward(self, tokens: Tensor, layout: Layout, times: Times | None = None) -> Tensor:
        """Queries ``[T, D]`` of ``tokens`` ``[T, D]``."""
        assert isinstance(layout, Buckets), "layout_of makes them"
        return over_buckets(
            tokens, layout, lambda rows, index: self.padded(rows, None if times is None else times.at(index))
        )
