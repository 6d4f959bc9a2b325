"""Causal attention with dropout on its probabilities, for a CPU: torch's fused kernel there takes no dropout.

B histories of a bucket, L the longest of them, H heads, d the width of a head, N = B * H.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from models.dropout import dropout_mask_, dropout_scale, random_bytes

ROWS = 64
"""Queries at a time: a block of them looks at no key after its last, so a third of the products is not taken."""


def cpu_attention_with_dropout(packed: Tensor, rate: float) -> Tensor:
    """``[B, L, H, d]`` of the packed projections ``[B, L, 3, H, d]``; ``rate`` is above 0."""
    mixed: Tensor = _DroppedAttention.apply(packed, rate)
    return mixed


class _DroppedAttention(torch.autograd.Function):
    """Keeps the probabilities with and without dropout; no mask is needed on the way back."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, rate: float) -> Tensor:
        query, key, value = _by_head(packed.permute(2, 0, 3, 1, 4)).flatten(1, 2).unbind(0)
        query.mul_(packed.shape[-1] ** -0.5)
        num_histories, longest, _, num_heads, width = packed.shape
        mixed = packed.new_empty(num_histories, longest, num_heads, width)
        drawn = random_bytes(len(query) * sum((end - start) * end for start, end in _blocks(longest)))
        future = query.new_full((ROWS, ROWS), float("-inf")).triu_(1)
        saved = []
        for start, end in _blocks(longest):
            score = torch.bmm(query[:, start:end], key[:, :end].mT)
            score[:, :, start:].add_(future[: end - start, : end - start])
            probability = torch.softmax(score, -1)
            ours, drawn = drawn[: score.numel()], drawn[score.numel() :]
            dropped = dropout_mask_(ours, rate, score).mul_(probability)
            out = torch.bmm(dropped, value[:, :end]).view(num_histories, num_heads, -1, width)
            torch.mul(out.transpose(1, 2), dropout_scale(rate), out=mixed[:, start:end])
            saved += [probability, dropped]
        ctx.save_for_backward(query, key, value, *saved)
        ctx.scale = dropout_scale(rate)
        return mixed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *saved = ctx.saved_tensors
        num_histories, longest, num_heads, width = grad.shape
        packed_grad = grad.new_empty(num_histories, longest, 3, num_heads, width)
        grad = _by_head(grad.transpose(1, 2)).mul_(ctx.scale).flatten(0, 1)
        key_grad = value_grad = torch.empty(0)
        for index, (start, end) in reversed(list(enumerate(_blocks(longest)))):
            probability, dropped = saved[2 * index : 2 * index + 2]
            score_grad = torch.bmm(grad[:, start:end], value[:, :end].mT).mul_(dropped)
            score_grad.addcmul_(probability, score_grad.sum(-1, keepdim=True), value=-1)
            of_query = torch.bmm(score_grad, key[:, :end]).view(num_histories, num_heads, -1, width)
            torch.mul(of_query.transpose(1, 2), width**-0.5, out=packed_grad[:, start:end, 0])
            of_key = torch.bmm(score_grad.mT, query[:, start:end])
            of_value = torch.bmm(dropped.mT, grad[:, start:end])
            if end == longest:  # the first to come, and the only one to reach every key
                key_grad, value_grad = of_key, of_value
            else:
                key_grad[:, :end] += of_key
                value_grad[:, :end] += of_value
        for place, part in ((1, key_grad), (2, value_grad)):
            packed_grad[:, :, place] = part.view(num_histories, num_heads, longest, width).transpose(1, 2)
        return packed_grad, None


def _by_head(projected: Tensor) -> Tensor:
    """A contiguous copy of ``[..., L, d]``, at least float32: a bfloat16 product is compiled for every new shape."""
    dtype = torch.promote_types(projected.dtype, torch.float32)
    return torch.empty(projected.shape, dtype=dtype).copy_(projected)


def _blocks(longest: int) -> Iterator[tuple[int, int]]:
    """First query and last key (exclusive) of each block of queries."""
    for start in range(0, longest, ROWS):
        yield start, min(start + ROWS, longest)
