"""Classical models, which know a user by the row of the user table alone: no event of the history reaches a query.

T tokens in the batch, N events to be found, B histories, L the longest of them, D the width of the model.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from configs.schema.model import DotConfig, SigmoidLinearConfig
from models.attention.bucketed import Buckets, over_buckets
from models.attention.dispatch import Layout
from models.dropout import Dropout
from models.encoders.encoder import EncoderFlop, Times
from models.encoders.padded import BucketedEncoder

LEAST = 0.01
"""A probability to begin with is this far from 0 and 1: beyond, a sigmoid hardly learns."""


class UserEncoder(Protocol):
    """What a model of users has beside a :class:`MaskedEncoder`: a part of the score that all items share."""

    def offset(self, user: Tensor) -> Tensor:
        """What is added to the score of every item, ``[N]``, for rows ``[N, D]`` of the user table. It changes no
        order of items, but a probability or a rating needs it."""
        ...

    def begin_at(self, mean: float) -> None:
        """Predict ``mean`` of a user of whom nothing is known, before anything is learnt."""
        ...


class Dot(BucketedEncoder):
    """The score is the product of the user's and the item's vector, and one number that all pairs share."""

    is_causal = False

    def __init__(self, config: DotConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: Tensor, layout: Layout, hidden: Tensor) -> Tensor:
        """Queries ``[N, D]`` for the events at ``hidden`` ``[N]``: the first token of their history, the user's."""
        assert isinstance(layout, Buckets), "layout_of makes them"
        user = over_buckets(tokens, layout, lambda rows, _: rows[:, :1].expand_as(rows))
        found: Tensor = self.dropout(user.index_select(0, hidden))
        return found

    def offset(self, user: Tensor) -> Tensor:
        """The same number for all: ``[N]``."""
        return self.bias.expand(len(user))

    def begin_at(self, mean: float) -> None:
        """The number is ``mean``."""
        nn.init.constant_(self.bias, mean)

    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """The user's vector ``[B, D]``, which is the first of ``[B, L, D]``."""
        found: Tensor = self.dropout(tokens[:, 0])
        return found

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """No product at all."""
        return EncoderFlop((), 0.0)


class SigmoidLinear(BucketedEncoder):
    """The probability is sigma(W1 u + W2 i + b). The item's part W2 i knows no user, so all users have one order."""

    is_causal = False

    def __init__(self, config: SigmoidLinearConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.user = nn.Linear(config.embedding_dim, 1)
        self.item = nn.Parameter(self.user.weight.detach().clone())

    def forward(self, tokens: Tensor, layout: Layout, hidden: Tensor) -> Tensor:
        """Queries ``[N, D]`` for the events at ``hidden`` ``[N]``: W2 for all of them."""
        found: Tensor = self.dropout(self.item.expand(len(hidden), -1))
        return found

    def offset(self, user: Tensor) -> Tensor:
        """W1 u + b: ``[N]``."""
        found: Tensor = self.user(user)
        return found.squeeze(1)

    def begin_at(self, mean: float) -> None:
        """The sigmoid of the number is ``mean``."""
        mean = min(max(mean, LEAST), 1 - LEAST)
        nn.init.constant_(self.user.bias, math.log(mean / (1 - mean)))

    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """W2 for each history: ``[B, D]``."""
        return self.item.expand(tokens.shape[0], -1)  # `len` would be a number of the traced batch

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """W1 of a user is W1 of each of its events here."""
        return EncoderFlop(((self.item.shape[1], 1),), 0.0)
