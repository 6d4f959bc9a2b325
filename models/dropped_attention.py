"""Causal attention with dropout on its probabilities, for a CPU: torch's fused kernel there takes no dropout.

B histories of a bucket, L the longest of them, H heads, d the width of a head, N = B * H.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from models.dropout import kept, kept_scale, random_bytes

ROWS = 64
"""Queries at a time: a block of them looks at no key after its last, so a third of the products is not taken."""


def dropped_attention(packed: Tensor, rate: float) -> Tensor:
    """``[B, L, H, d]`` of the packed projections ``[B, L, 3, H, d]``; ``rate`` is above 0."""
    mixed: Tensor = _DroppedAttention.apply(packed, rate)
    return mixed


class _DroppedAttention(torch.autograd.Function):
    """Keeps the probabilities with and without dropout; no mask is needed on the way back."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, rate: float) -> Tensor:
        query, key, value = _by_head(packed)
        query.mul_(packed.shape[-1] ** -0.5)
        num_histories, longest, _, num_heads, width = packed.shape
        mixed = packed.new_empty(num_histories, longest, num_heads, width)
        drawn = random_bytes(len(query) * sum((end - start) * end for start, end in _blocks(longest)))
        future = packed.new_full((ROWS, ROWS), float("-inf")).triu_(1)
        saved = []
        for start, end in _blocks(longest):
            num_rows = end - start
            score = torch.bmm(query[:, start:end], key[:, :end].mT)
            score[:, :, start:].add_(future[:num_rows, :num_rows])
            probability = torch.softmax(score, -1)
            ours, drawn = drawn[: score.numel()], drawn[score.numel() :]
            dropped = kept(ours, rate, score).mul_(probability)
            out = torch.bmm(dropped, value[:, :end]).view(num_histories, num_heads, num_rows, width)
            torch.mul(out.transpose(1, 2), kept_scale(rate), out=mixed[:, start:end])
            saved += [probability, dropped]
        ctx.save_for_backward(query, key, value, *saved)
        ctx.scale = kept_scale(rate)
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        num_histories, longest, num_heads, width = grad.shape
        grad = (grad.transpose(1, 2) * ctx.scale).reshape(-1, longest, width)
        query_grad, key_grad, value_grad = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for index, (start, end) in reversed(list(enumerate(_blocks(longest)))):
            probability, dropped = saved[2 * index : 2 * index + 2]
            score_grad = torch.bmm(grad[:, start:end], value[:, :end].mT).mul_(dropped)
            score_grad.addcmul_(probability, score_grad.sum(-1, keepdim=True), value=-1)
            query_grad[:, start:end] = torch.bmm(score_grad, key[:, :end])
            of_key = torch.bmm(score_grad.mT, query[:, start:end])
            of_value = torch.bmm(dropped.mT, grad[:, start:end])
            if end == longest:  # the first to come, and the only one to reach every key
                key_grad, value_grad = of_key, of_value
            else:
                key_grad[:, :end] += of_key
                value_grad[:, :end] += of_value
        query_grad.mul_(width**-0.5)
        parts = [each.view(num_histories, num_heads, longest, width) for each in (query_grad, key_grad, value_grad)]
        return torch.stack([part.transpose(1, 2) for part in parts], 2), None


def _by_head(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, ``[N, L, d]`` each, of ``[B, L, 3, H, d]``; copies."""
    query, key, value = packed.permute(2, 0, 3, 1, 4).contiguous().flatten(1, 2).unbind(0)
    return query, key, value


def _blocks(longest: int) -> Iterator[tuple[int, int]]:
    """First query and last key (exclusive) of each block of queries."""
    for start in range(0, longest, ROWS):
        yield start, min(start + ROWS, longest)
