"""Exact cross-entropy over a sharded catalogue; the logits ``[N, V]`` never exist.

N predictions of all ranks together, n of this rank, V items, v of this rank's slice, D the width, C rows of a chunk.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from configs.schema import Precision
from models.collectives import Collectives

CPU_CHUNK_TOKENS = 256
"""A chunk that stays in the cache; ``shardrec bench loss`` compares sizes."""

GPU_CHUNK_BYTES = 2**31
"""Of a chunk's logits."""

LARGEST_SAFE_LOGIT = 60.0
"""``exp`` of it, summed over 1e12 items, is still a float32: below it no maximum has to be subtracted."""


def suitable_chunk_tokens(device: torch.device, num_rows: int, precision: Precision) -> int:
    """How many rows of logits ``[C, v]`` at a time suit ``device`` where the largest slice has ``num_rows``.

    All ranks must take as many: they sum each chunk's normalisers together.
    """
    if device.type == "cpu":
        return CPU_CHUNK_TOKENS
    bytes_of_logit = 2 if precision is Precision.BF16 else 4
    return max(GPU_CHUNK_BYTES // (num_rows * bytes_of_logit), 1)


def full_softmax_loss(
    query: Tensor,
    target: Tensor,
    slice_vector: Tensor,
    items: range,
    *,
    chunk_tokens: int,
    collectives: Collectives,
    precision: Precision = Precision.FP32,
) -> Tensor:
    """Sum over the predictions of **all** ranks of ``-log softmax(query . item)[target]``, the same on every rank.

    ``query`` ``[n, D]`` and ``target`` ``[n]`` are this rank's; ``slice_vector`` ``[v, D]`` are the vectors of
    ``items``; ``chunk_tokens`` is the same on every rank. The gradients reach this rank's queries and its slice and
    are complete: those of the unsharded loss, in float32 exact, in bfloat16 with products of that precision.
    Collective.
    """
    loss: Tensor = _FullSoftmax.apply(query, target, slice_vector, items, chunk_tokens, collectives, precision)
    return loss


class _FullSoftmax(torch.autograd.Function):
    """Loss and gradients in one pass: a chunk's logits become their exponentials, then both products are taken."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: Tensor,
        target: Tensor,
        slice_vector: Tensor,
        items: range,
        chunk_tokens: int,
        collectives: Collectives,
        precision: Precision,
    ) -> Tensor:
        sizes = collectives.gather(torch.tensor([len(query)], device=query.device)).tolist()  # waits for the device
        queries, targets = collectives.gather(query.detach()), collectives.gather(target)
        parts = _against_everything(queries, slice_vector.detach(), chunk_tokens, collectives, precision)
        is_ours = ((targets >= items.start) & (targets < items.stop)).nonzero().squeeze(1)
        place, ours = targets[is_ours] - items.start, queries.index_select(0, is_ours)
        target_vector = slice_vector.detach().index_select(0, place)
        target_logit = queries.new_zeros(len(queries))
        target_logit[is_ours] = (ours * target_vector).sum(1)
        _subtract_rows(parts.query_grad, is_ours, target_vector)
        _subtract_rows(parts.slice_grad, place, ours)
        collectives.sum(target_logit)
        collectives.sum(parts.query_grad)
        first = sum(sizes[: collectives.rank])
        ctx.save_for_backward(parts.query_grad[first : first + len(query)], parts.slice_grad)
        return (parts.log_normaliser - target_logit).sum(dtype=torch.float64)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        query_grad, slice_grad = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = grad.to(query_grad.dtype)
        return query_grad * scale, None, slice_grad * scale, None, None, None, None


def _subtract_rows(total: Tensor, index: Tensor, rows: Tensor) -> None:
    """As ``index_add_``, which on a CPU takes four times as long, on one thread."""
    total.scatter_add_(0, index[:, None].expand_as(rows), -rows)


@dataclass(slots=True)
class _Parts:
    """Of ``sum log(sum exp(query . item))``: the value of each query ``[N]`` and the two gradients."""

    log_normaliser: Tensor
    query_grad: Tensor
    """``[N, D]``, of this rank's items alone."""
    slice_grad: Tensor
    """``[v, D]``"""


def _against_everything(
    queries: Tensor, slice_vector: Tensor, chunk_tokens: int, collectives: Collectives, precision: Precision
) -> _Parts:
    """Score ``queries`` ``[N, D]`` against this rank's slice ``[v, D]``, a chunk at a time. Collective.

    The exponentials are never divided by their sum: the small sides of the products are, ``[C, D]`` for ``[C, v]``.
    They are powers of 2 of logits in bits: torch's ``exp`` of float32 takes three times as long as its ``exp2``.
    """
    dtype = torch.bfloat16 if precision is Precision.BF16 else queries.dtype
    items, in_bits = slice_vector.to(dtype), (queries * math.log2(math.e)).to(dtype)
    weighted, slice_grad = torch.empty_like(in_bits), torch.zeros_like(slice_vector)
    normaliser, shift = queries.new_empty(len(queries)), queries.new_zeros(len(queries))
    is_safe = _largest_possible(queries, slice_vector, collectives) <= LARGEST_SAFE_LOGIT
    buffer = items.new_empty(min(chunk_tokens, max(len(queries), 1)), len(items))
    for start in range(0, len(queries), chunk_tokens):
        rows = slice(start, min(start + chunk_tokens, len(queries)))
        logits = torch.mm(in_bits[rows], items.t(), out=buffer[: rows.stop - start])
        if not is_safe:
            shift[rows] = _subtract_largest(logits, collectives)
        torch.sum(logits.exp2_(), 1, dtype=queries.dtype, out=normaliser[rows])
        collectives.sum(normaliser[rows])
        torch.mm(logits, items, out=weighted[rows])
        scaled = (queries[rows] / normaliser[rows, None]).to(dtype)
        if dtype is slice_grad.dtype:
            slice_grad.addmm_(logits.t(), scaled)
        else:
            slice_grad += torch.mm(logits.t(), scaled)
    log_normaliser = (normaliser.log2() + shift) * math.log(2)
    return _Parts(log_normaliser, weighted / normaliser[:, None], slice_grad)


def _largest_possible(queries: Tensor, slice_vector: Tensor, collectives: Collectives) -> float:
    """A bound on every logit (Cauchy-Schwarz), alike on every rank; waits for the device. Collective."""
    zero = queries.new_zeros(1)
    length = torch.cat([slice_vector.norm(dim=1), zero]).max() * torch.cat([queries.norm(dim=1), zero]).max()
    return float(collectives.max(length))


def _subtract_largest(logits: Tensor, collectives: Collectives) -> Tensor:
    """Subtract from each row of ``[C, v]`` its largest logit over all ranks, and return them ``[C]``. Collective."""
    largest = torch.full((len(logits),), float("-inf"), device=logits.device)
    if logits.shape[1]:
        largest = logits.amax(1).float()
    largest = collectives.max(largest)
    logits.sub_(largest[:, None])
    return largest
