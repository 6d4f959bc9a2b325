"""Causal attention over jagged tokens by padding: histories of like length make a bucket, each is one padded call.

T tokens in the batch, B histories, L the longest of a bucket, H heads, D the width of the model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from models.attention.cpu_dropout import cpu_attention_with_dropout

MAX_BUCKETS = 8


@dataclass(frozen=True, slots=True)
class Buckets:
    """Where the tokens of a batch lie once its histories are grouped by length; made once, used by every block."""

    buckets: list[Tensor]
    """One ``[B_bucket, L_bucket]`` index into the tokens each; places after a history's end repeat its last token."""
    position: Tensor
    """``[T]``: place of each token inside its own history, from 0."""
    inverse: Tensor
    """``[T]``: row of each token in the flattened, concatenated buckets."""


def buckets_of(lengths: Tensor, max_buckets: int = MAX_BUCKETS) -> Buckets:
    """The buckets of histories of ``lengths`` ``[B]`` that lie one after another; empty ones are allowed.

    Padding on the right needs no mask under causal attention: no token looks at what comes after it.
    """
    num_tokens = int(lengths.sum())  # waits for a GPU, and so does each bucket
    first = torch.cumsum(lengths, 0) - lengths
    owner = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    position = torch.arange(num_tokens, device=lengths.device) - first[owner]
    inverse = torch.empty(num_tokens, dtype=torch.int64, device=lengths.device)
    buckets, num_rows = [], 0
    for members in _groups_by_length(lengths, max_buckets):
        longest = int(lengths[members].max())
        place = torch.arange(longest, device=lengths.device)
        last = (lengths[members] - 1)[:, None]
        index = first[members][:, None] + torch.minimum(place, last)
        row = num_rows + torch.arange(index.numel(), device=lengths.device).view_as(index)
        is_token = place <= last
        inverse[index[is_token]] = row[is_token]
        buckets.append(index)
        num_rows += index.numel()
    return Buckets(buckets, position, inverse)


def _groups_by_length(lengths: Tensor, max_buckets: int) -> list[Tensor]:
    """Non-empty histories, sorted by length and cut where about the same number of tokens has gone by."""
    order = torch.argsort(lengths, stable=True)
    order = order[lengths[order] > 0]
    if not len(order):
        return []
    progress = torch.cumsum(lengths[order], 0)
    bucket = (progress - 1) * max_buckets // progress[-1]
    return [group for group in torch.split(order, torch.bincount(bucket).tolist()) if len(group)]


def bucketed_attention(qkv: Tensor, layout: Buckets, *, num_heads: int, rate: float) -> Tensor:
    """Self-attention ``[T, D]`` of packed projections ``[T, 3 * D]``, each token over itself and its past."""
    width = qkv.shape[1] // 3
    if not layout.buckets:
        return qkv[:, :width]
    padded = _Padded.apply(qkv, torch.cat([index.view(-1) for index in layout.buckets]), layout.inverse)
    mixed = []
    for index, part in zip(layout.buckets, padded.split([index.numel() for index in layout.buckets]), strict=True):
        packed = part.view(*index.shape, 3, num_heads, width // num_heads)
        mixed.append(padded_attention(packed, rate).reshape(-1, width))
    jagged: Tensor = _Jagged.apply(torch.cat(mixed), layout.inverse)
    return jagged


def bucketed_last_attention(query: Tensor, key_value: Tensor, layout: Buckets, *, num_heads: int) -> Tensor:
    """Attention ``[B, D]`` of each history's last token over the whole history.

    ``query`` ``[B, D]`` lies in the order of :func:`bucketed_last_tokens`, ``key_value`` is ``[T, 2 * D]``.
    """
    width = query.shape[1]
    mixed = []
    for index, part in zip(layout.buckets, query.split([len(index) for index in layout.buckets]), strict=True):
        num_histories, longest = index.shape
        packed = key_value.index_select(0, index.view(-1)).view(num_histories, longest, 2, num_heads, -1)
        key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        is_token = torch.arange(longest, device=index.device) <= (index[:, -1:] - index[:, :1])
        out = functional.scaled_dot_product_attention(
            part.view(num_histories, num_heads, 1, -1), key, value, attn_mask=is_token[:, None, None]
        )
        mixed.append(out.reshape(num_histories, width))
    return torch.cat(mixed) if mixed else query


def bucketed_last_tokens(layout: Buckets) -> Tensor:
    """The index ``[B]`` of each non-empty history's last token, bucket by bucket."""
    none = layout.position[:0]
    return torch.cat([none, *(index[:, -1] for index in layout.buckets)])


def over_buckets(tokens: Tensor, layout: Buckets, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``function`` over ``[T, D]``, a bucket at a time: of its rows ``[b, L, D]`` and their index into the tokens
    ``[b, L]`` it makes as many rows, none of which looks at a later one of its history."""
    if not layout.buckets:
        return tokens
    sizes = [index.numel() for index in layout.buckets]
    padded = _Padded.apply(tokens, torch.cat([index.view(-1) for index in layout.buckets]), layout.inverse)
    made = [
        function(part.view(*index.shape, -1), index).flatten(0, 1)
        for index, part in zip(layout.buckets, padded.split(sizes), strict=True)
    ]
    jagged: Tensor = _Jagged.apply(torch.cat(made), layout.inverse)
    return jagged


class _Padded(torch.autograd.Function):
    """Tokens to the rows of the buckets. Padding gets no gradient under causal attention, so backward is a gather."""

    @staticmethod
    def forward(ctx: FunctionCtx, tokens: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return tokens.index_select(0, index)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad.index_select(0, inverse), None, None


class _Jagged(torch.autograd.Function):
    """Rows of the buckets to tokens; every token has one row, so backward is a copy without accumulation."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.num_rows = len(rows)  # type: ignore[attr-defined]
        return rows.index_select(0, inverse)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        (inverse,) = ctx.saved_tensors  # type: ignore[attr-defined]
        padded = grad.new_zeros(ctx.num_rows, grad.shape[1])  # type: ignore[attr-defined]
        return padded.index_copy_(0, inverse, grad), None


def padded_attention(packed: Tensor, rate: float) -> Tensor:
    """``[B, L, 3, H, D / H]`` to ``[B, L, H, D / H]``; ``rate`` is the dropout on attention probabilities."""
    if rate > 0 and packed.device.type == "cpu":
        with torch.autocast("cpu", enabled=False):
            return cpu_attention_with_dropout(packed, rate)
    query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
    return functional.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True).transpose(1, 2)
