"""Exact cross-entropy over a sharded catalogue; the logits ``[N, V]`` never exist.

N predictions of all ranks together, n of this rank, V items, v of this rank's slice, D the width, C rows of a chunk.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from configs.schema import Precision
from models.collectives import Collectives

CPU_PIECE_TOKENS = 256
"""Rows of logits that stay in the cache; ``shardrec bench loss`` compares sizes."""

CPU_CHUNK_BYTES = 2**26
"""Of a chunk's logits where ranks sum its normalisers: each sum waits for the slowest rank, so there are few. What
fits into two such chunks is one."""

GPU_CHUNK_BYTES = 2**31
"""Of a chunk's logits."""

LARGEST_SAFE_LOGIT = 60.0
"""``exp`` of it, summed over 1e12 items, is still a float32: below it no maximum has to be subtracted."""


def suitable_chunk_tokens(device: torch.device, num_rows: int, precision: Precision, world_size: int = 1) -> int:
    """How many rows of logits ``[C, v]`` at a time suit ``device`` where the largest slice has ``num_rows``.

    All ranks must take as many: they sum each chunk's normalisers together. Several ranks hold up to two at a time.
    """
    bytes_of_row = num_rows * (2 if precision is Precision.BF16 else 4)
    if device.type == "cpu":
        return max(CPU_CHUNK_BYTES // bytes_of_row, CPU_PIECE_TOKENS) if world_size > 1 else CPU_PIECE_TOKENS
    return max(GPU_CHUNK_BYTES // bytes_of_row, 1)


def full_softmax_loss(
    query: Tensor,
    target: Tensor,
    slice_vector: Tensor,
    items: range,
    *,
    chunk_tokens: int,
    collectives: Collectives,
    precision: Precision = Precision.FP32,
    extent: "Extent | None" = None,
) -> Tensor:
    """Sum over the predictions of **all** ranks of ``-log softmax(query . item)[target]``, the same on every rank.

    ``query`` ``[n, D]`` and ``target`` ``[n]`` are this rank's; ``slice_vector`` ``[v, D]`` are the vectors of
    ``items``; ``chunk_tokens`` is the same on every rank. The gradients reach this rank's queries and its slice and
    are complete: those of the unsharded loss, in float32 exact, in bfloat16 with products of that precision.
    ``extent``: of the same vectors, where it is known. Collective.
    """
    extent = extent_of(query, slice_vector, collectives) if extent is None else extent
    loss: Tensor = _FullSoftmax.apply(
        query, target, slice_vector, items, chunk_tokens, collectives, precision, extent
    )
    return loss


@dataclass(frozen=True, slots=True)
class Extent:
    """What the ranks know of each other's predictions before they score them; the same on every rank."""

    sizes: list[int]
    """Predictions of each rank."""
    largest_logit: float
    """A bound on every logit (Cauchy-Schwarz)."""

    @property
    def num_predictions(self) -> int:
        """Of all ranks."""
        return sum(self.sizes)


@torch.no_grad()
def extent_of(query: Tensor, slice_vector: Tensor, collectives: Collectives) -> Extent:
    """Of this rank's ``query`` ``[n, D]`` and ``slice_vector`` ``[v, D]``. Waits for the device. Collective."""
    zero = query.new_zeros(1)
    lengths = [torch.cat([vectors.norm(dim=1), zero]).max().double() for vectors in (query, slice_vector)]
    own = torch.stack([lengths[0].new_tensor(len(query)), *lengths])
    sizes, of_queries, of_slices = collectives.gather(own[None], [1] * collectives.world_size).t().tolist()
    return Extent([int(size) for size in sizes], max(of_queries) * max(of_slices))


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
        extent: Extent,
    ) -> Tensor:
        queries, targets = _of_all_ranks(query.detach(), target, extent.sizes, collectives)
        is_ours = ((targets >= items.start) & (targets < items.stop)).nonzero().squeeze(1)
        place, ours = targets[is_ours] - items.start, queries.index_select(0, is_ours)
        target_vector = slice_vector.detach().index_select(0, place)
        target_logit = queries.new_zeros(len(queries))
        target_logit[is_ours] = (ours * target_vector).sum(1)
        scan = _Scan(queries, target_logit, slice_vector.detach(), chunk_tokens, collectives, precision)
        scan.run(is_safe=extent.largest_logit <= LARGEST_SAFE_LOGIT)
        query_grad = scan.query_grad
        _subtract_rows(query_grad, is_ours, target_vector)
        summed = collectives.begin_sum_of_own_rows(query_grad, extent.sizes)
        _subtract_rows(scan.slice_grad, place, ours)
        ctx.save_for_backward(summed(), scan.slice_grad)
        return scan.losses.sum(dtype=torch.float64)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        query_grad, slice_grad = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = grad.to(query_grad.dtype)
        return query_grad * scale, None, slice_grad * scale, None, None, None, None, None


def _subtract_rows(total: Tensor, index: Tensor, rows: Tensor) -> None:
    """As ``index_add_``, which on a CPU takes four times as long, on one thread."""
    total.scatter_add_(0, index[:, None].expand_as(rows), -rows)


def _of_all_ranks(query: Tensor, target: Tensor, sizes: list[int], collectives: Collectives) -> tuple[Tensor, Tensor]:
    """``query`` ``[n, D]`` and ``target`` ``[n]``, int64, of all ranks: in one collective, the targets' bits as
    further columns of the queries. Collective."""
    if collectives.world_size == 1:
        return query, target
    bits = target.contiguous().view(query.dtype).view(len(target), target.element_size() // query.element_size())
    both = collectives.gather(torch.cat([query, bits], 1), sizes)
    width = query.shape[1]
    return both[:, :width].contiguous(), both[:, width:].contiguous().view(target.dtype).squeeze(1)


@dataclass(slots=True)
class _Chunk:
    """Rows whose exponentials are there, while their sums over the ranks are under way."""

    rows: slice
    exponentials: Tensor
    """``[C, v]``"""
    wait: Callable[[], object]


class _Scan:
    """``queries`` ``[N, D]`` against this rank's slice ``[v, D]``, a chunk at a time.

    ``target_logit`` ``[N]`` are the logits of this rank's items and 0 elsewhere. While the ranks sum the normalisers
    of a chunk, the exponentials of the next one are computed. They are never divided by their sum: the small sides of
    the products are, ``[C, D]`` for ``[C, v]``. They are powers of 2 of logits in bits: torch's ``exp`` of float32
    takes three times as long as its ``exp2``.
    """

    def __init__(
        self,
        queries: Tensor,
        target_logit: Tensor,
        slice_vector: Tensor,
        chunk_tokens: int,
        collectives: Collectives,
        precision: Precision,
    ) -> None:
        dtype = torch.bfloat16 if precision is Precision.BF16 else queries.dtype
        self._queries, self._collectives = queries, collectives
        self._items, self._in_bits = slice_vector.to(dtype), (queries * math.log2(math.e)).to(dtype)
        self._weighted, self.slice_grad = torch.empty_like(self._in_bits), torch.zeros_like(slice_vector)
        self._sums = torch.stack([torch.zeros_like(target_logit), target_logit], 1)
        """``[N, 2]``: normalisers and target logits, of this rank, then of all."""
        self._shift = torch.zeros_like(target_logit)
        rows, num_buffers = min(chunk_tokens, max(len(queries), 1)), 1
        if collectives.world_size > 1 and len(queries) > rows:
            rows, num_buffers = (len(queries), 1) if len(queries) <= 2 * rows else (rows, 2)
        self._chunk_tokens = rows
        self._buffers = [self._items.new_empty(rows, len(self._items)) for _ in range(num_buffers)]

    @property
    def losses(self) -> Tensor:
        """``-log softmax`` of each target ``[N]``, the same on every rank."""
        return (self._sums[:, 0].log2() + self._shift) * math.log(2) - self._sums[:, 1]

    @property
    def query_grad(self) -> Tensor:
        """``[N, D]`` of the log normalisers, of this rank's items alone."""
        return self._weighted / self._sums[:, :1]

    def run(self, is_safe: bool) -> None:
        """Compute what the properties tell; unless ``is_safe`` each row's largest logit is subtracted. Collective."""
        under_way: list[_Chunk] = []
        for number, start in enumerate(range(0, len(self._queries), self._chunk_tokens)):
            rows = slice(start, min(start + self._chunk_tokens, len(self._queries)))
            buffer = self._buffers[number % len(self._buffers)][: rows.stop - start]
            self._exponentiate(rows, buffer, is_safe)
            under_way.append(_Chunk(rows, buffer, self._collectives.begin_sum(self._sums[rows])))
            if len(under_way) == len(self._buffers):
                self._finish(under_way.pop(0))
        for chunk in under_way:
            self._finish(chunk)

    def _exponentiate(self, rows: slice, buffer: Tensor, is_safe: bool) -> None:
        """Fill ``buffer`` ``[C, v]`` and what follows from this rank's items; on a CPU by pieces that stay in the
        cache. Collective unless ``is_safe``."""
        is_whole = buffer.device.type != "cpu" or not is_safe
        size = max(len(buffer), 1) if is_whole else CPU_PIECE_TOKENS
        for first in range(0, len(buffer), size):
            piece = slice(rows.start + first, min(rows.start + first + size, rows.stop))
            logits = buffer[first : piece.stop - rows.start]
            torch.mm(self._in_bits[piece], self._items.t(), out=logits)
            if not is_safe:
                self._shift[piece] = _subtract_largest(logits, self._collectives)
            self._sums[piece, 0] = torch.sum(logits.exp2_(), 1, dtype=self._sums.dtype)
            torch.mm(logits, self._items, out=self._weighted[piece])

    def _finish(self, chunk: _Chunk) -> None:
        """What needs the normalisers of all ranks: the gradient of the slice."""
        chunk.wait()
        scaled = (self._queries[chunk.rows] / self._sums[chunk.rows, :1]).to(self._items.dtype)
        if self._items.dtype is self.slice_grad.dtype:
            self.slice_grad.addmm_(chunk.exponentials.t(), scaled)
        else:
            self.slice_grad += torch.mm(chunk.exponentials.t(), scaled)


def _subtract_largest(logits: Tensor, collectives: Collectives) -> Tensor:
    """Subtract from each row of ``[C, v]`` its largest logit over all ranks, and return them ``[C]``. Collective."""
    largest = torch.full((len(logits),), float("-inf"), device=logits.device)
    if logits.shape[1]:
        largest = logits.amax(1).float()
    largest = collectives.max(largest)
    logits.sub_(largest[:, None])
    return largest
