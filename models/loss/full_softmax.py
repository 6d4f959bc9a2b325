"""Exact cross-entropy over a sharded catalogue; the logits ``[N, V]`` never exist.

N predictions of all ranks together, n of this rank, V items, v of this rank's slice, D the width, C rows of a chunk.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from models.loss.catalogue import Peers


def full_softmax_loss(
    query: Tensor, target: Tensor, slice_vector: Tensor, items: range, *, chunk_tokens: int, peers: Peers
) -> Tensor:
    """Sum over the predictions of **all** ranks of ``-log softmax(query . item)[target]``, the same on every rank.

    ``query`` ``[n, D]`` and ``target`` ``[n]`` are this rank's; ``slice_vector`` ``[v, D]`` are the vectors of
    ``items``. The gradients reach this rank's queries and its slice and are complete: exact for the unsharded loss.
    Collective.
    """
    loss: Tensor = _FullSoftmax.apply(query, target, slice_vector, items, chunk_tokens, peers)
    return loss


class _FullSoftmax(torch.autograd.Function):
    """Loss and gradients in one pass: a chunk's logits become its softmax in place, then both products are taken."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: Tensor,
        target: Tensor,
        slice_vector: Tensor,
        items: range,
        chunk_tokens: int,
        peers: Peers,
    ) -> Tensor:
        sizes = peers.gather(torch.tensor([len(query)], device=query.device)).tolist()
        queries, targets = peers.gather(query.detach()), peers.gather(target)
        query_grad, slice_grad = torch.empty_like(queries), torch.zeros_like(slice_vector)
        buffer = queries.new_empty(min(chunk_tokens, max(len(queries), 1)), len(slice_vector))
        total = queries.new_zeros((), dtype=torch.float64)
        for start in range(0, len(queries), chunk_tokens):
            rows = slice(start, min(start + chunk_tokens, len(queries)))
            logits = torch.mm(queries[rows], slice_vector.t(), out=buffer[: rows.stop - start])
            total += _to_gradient(logits, targets[rows] - items.start, peers)
            torch.mm(logits, slice_vector, out=query_grad[rows])
            slice_grad.addmm_(logits.t(), queries[rows])
        peers.sum(query_grad)
        first = sum(sizes[: peers.rank])
        ctx.save_for_backward(query_grad[first : first + len(query)], slice_grad)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        query_grad, slice_grad = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = grad.to(query_grad.dtype)
        return query_grad * scale, None, slice_grad * scale, None, None, None


def _to_gradient(logits: Tensor, target: Tensor, peers: Peers) -> Tensor:
    """Turn a chunk's ``[C, v]`` logits into ``softmax - one_hot(target)`` in place; return its summed loss (float64).

    ``target`` ``[C]`` counts from the slice's first item; one outside the slice is another rank's.
    """
    is_ours = ((target >= 0) & (target < logits.shape[1])).nonzero().squeeze(1)
    column = target[is_ours]
    largest = logits.amax(1) if logits.shape[1] else logits.new_full((len(logits),), float("-inf"))
    largest = peers.max(largest)
    target_logit = logits.new_zeros(len(logits))
    target_logit[is_ours] = logits[is_ours, column]
    logits.sub_(largest[:, None]).exp_()
    partial = peers.sum(torch.stack([logits.sum(1), target_logit]))
    logits.div_(partial[0][:, None])
    logits[is_ours, column] -= 1
    return (partial[0].log() + largest - partial[1]).sum(dtype=torch.float64)
