"""HSTU: attention through SiLU in place of a softmax, moved by how far apart two events lie in place and in time.

Zhai et al. (ICML 2024), the research variant. b histories, L the longest of them, H heads, d the width of a head,
D = H * d the width of the model.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema.model import HSTUConfig, TimeInput
from models.dropout import Dropout
from models.encoders.encoder import EncoderFlop, Times, at_last, mean_attended
from models.encoders.padded import PaddedEncoder

NUM_TIME_BUCKETS = 128
"""Beside that of no time at all; four years are in bucket 61."""
TIME_BUCKET = 0.301
"""Natural logarithm of the factor between two buckets of time, 1.351."""


class Distance(NamedTuple):
    """How far events lie apart: of Q queries and their L tokens."""

    place: Tensor
    """int64 ``[Q, L]`` or ``[b, 1, L]``; 0 where the token is a later one, which is not looked at."""
    time: Tensor | None
    """Bucket of time, int64 ``[b, Q, L]``."""
    is_past: Tensor
    """Which tokens a query looks at, in the shape of ``place``."""


class HSTUBlock(nn.Module):
    """One projection makes gate, values, queries and keys; no feed-forward part, the gate is in its place."""

    def __init__(self, config: HSTUConfig, max_tokens: int) -> None:
        super().__init__()
        width = config.embedding_dim
        self.num_heads, self.max_tokens = config.num_heads, max_tokens
        self.uvqk = nn.Linear(width, 4 * width, bias=False)
        self.project = nn.Linear(width, width)
        self.dropout = Dropout(config.dropout)
        self.place_bias = nn.Parameter(torch.empty(max_tokens))
        self.time_bias: nn.Parameter | None = None
        if config.time is not TimeInput.NONE:
            self.time_bias = nn.Parameter(torch.empty(NUM_TIME_BUCKETS + 1))
        for weight in (self.uvqk.weight, self.place_bias, self.time_bias):
            if weight is not None:
                nn.init.normal_(weight, std=config.initial_std)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, tokens: Tensor, distance: Distance) -> Tensor:
        """``[b, L, D]`` to the same."""
        gate, value, query, key = functional.silu(self.uvqk(_normed(tokens))).chunk(4, dim=-1)
        return self._joined(tokens, gate, self._attention(query, key, value, distance))

    def last(self, tokens: Tensor, last: Tensor, distance: Distance) -> Tensor:
        """``[b, L, D]`` to the token at ``last`` ``[b]``: ``[b, D]``; ``distance`` is that of one query a history."""
        normed, weight, width = _normed(tokens), self.uvqk.weight, tokens.shape[2]
        normed_last = at_last(normed, last)[:, None]
        gate = functional.silu(functional.linear(normed_last, weight[:width]))
        value = functional.silu(functional.linear(normed, weight[width : 2 * width]))
        key = functional.silu(functional.linear(normed, weight[3 * width :]))
        query = functional.silu(functional.linear(normed_last, weight[2 * width : 3 * width]))
        mixed = self._attention(query, key, value, distance)
        return self._joined(at_last(tokens, last)[:, None], gate, mixed)[:, 0]

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, distance: Distance) -> Tensor:
        """``[b, Q, D]`` of queries ``[b, Q, D]`` over ``[b, L, D]``."""
        query, key, value = (each.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for each in (query, key, value))
        bias = looked_up(self.place_bias, distance.place)
        if self.time_bias is not None:
            assert distance.time is not None, "times are asked for by reads_time"
            bias = bias + looked_up(self.time_bias, distance.time)
        is_past = distance.is_past
        if bias.dim() == 3:
            bias = bias[:, None]
        if is_past.dim() == 3:
            is_past = is_past[:, None]
        share = functional.silu(query @ key.transpose(2, 3) + bias) * (is_past / self.max_tokens)
        return (share @ value).transpose(1, 2).flatten(2)

    def _joined(self, tokens: Tensor, gate: Tensor, mixed: Tensor) -> Tensor:
        joined: Tensor = tokens + self.project(self.dropout(gate * _normed(mixed)))
        return joined


class HSTU(PaddedEncoder):
    """Hierarchical Sequential Transduction Units; queries leave a layer norm, as those of the other encoders do."""

    def __init__(self, config: HSTUConfig, max_tokens: int) -> None:
        """``max_tokens``: the longest history it will see, a first user token included; attention divides by it."""
        super().__init__()
        self.time = config.time
        self.reads_time = config.reads_time
        self.position = nn.Embedding(max_tokens, config.embedding_dim)
        nn.init.normal_(self.position.weight, std=config.initial_std)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(HSTUBlock(config, max_tokens) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.embedding_dim)

    def padded(self, tokens: Tensor, times: Times | None) -> Tensor:
        """``[b, L, D]`` to the same."""
        hidden, distance = self._entered(tokens), self._distance(tokens, times)
        for block in self.blocks:
            hidden = block(hidden, distance)
        return self.norm(hidden)

    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """The last block computes one token a history."""
        hidden, distance, last = self._entered(tokens), self._distance(tokens, times), lengths - 1
        *blocks, final = self.blocks
        assert isinstance(final, HSTUBlock), "blocks are built above"
        for block in blocks:
            hidden = block(hidden, distance)
        row = torch.arange(last.shape[0], device=last.device)
        of_last = Distance(
            distance.place[last][:, None],
            None if distance.time is None else distance.time[row, last][:, None],
            distance.is_past[last][:, None],
        )
        queries: Tensor = self.norm(final.last(hidden, last, of_last))
        return queries

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """Of a token: gate, values, queries and keys, the projection, and two products with each token before it."""
        width, num_blocks = self.position.embedding_dim, len(self.blocks)
        products = ((width, 4 * width), (width, width)) * num_blocks
        return EncoderFlop(products, 4.0 * num_blocks * width * mean_attended(lengths))

    def _entered(self, tokens: Tensor) -> Tensor:
        scaled = tokens * self.position.embedding_dim**0.5
        entered: Tensor = self.dropout(scaled + self.position.weight[: tokens.shape[1]])
        return entered

    def _distance(self, tokens: Tensor, times: Times | None) -> Distance:
        """Of each of L queries; made once, used by every block."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        apart = place[:, None] - place
        bucket = None
        if self.time is not TimeInput.NONE:
            assert times is not None, "times are asked for by reads_time"
            now = times.asked if self.time is TimeInput.REQUEST else times.event
            bucket = time_buckets(now[:, :, None] - times.event[:, None])
        return Distance(apart.clamp(min=0), bucket, apart >= 0)


def time_buckets(apart_ms: Tensor) -> Tensor:
    """The bucket of each span of time in ms, int64: 0 up to a second, then each 1.351 times as wide as the last."""
    seconds = (apart_ms.abs().double() / 1000).clamp(min=1)
    return (seconds.log() / TIME_BUCKET).long().clamp(max=NUM_TIME_BUCKETS)


def looked_up(weight: Tensor, index: Tensor) -> Tensor:
    """``weight[index]`` of a vector; its gradient is one count over the indices: torch's own adds them one by one."""
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return weight[index]
    found: Tensor = _LookedUp.apply(weight, index)
    return found


class _LookedUp(torch.autograd.Function):
    """A lookup whose backward is a weighted count."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = len(weight)
        return weight[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        counted = torch.bincount(index.flatten(), grad.flatten().double(), minlength=ctx.size)
        return counted.to(grad.dtype), None


def _normed(values: Tensor) -> Tensor:
    """A layer norm without weights of its own."""
    return functional.layer_norm(values, values.shape[-1:])
