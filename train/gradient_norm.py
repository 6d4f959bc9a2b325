"""The norm of a step's whole gradient: of the dense part, and of every row of a table whichever ranks looked it up.

n rows of this rank, D the width.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from train.distributed.collectives import ProcessGroupCollectives


class GradientNorm:
    """A row that several ranks look up has the sum of their gradients, which only its table's shard would see.

    So each row is sent to one rank, which squares the sum: as much traffic as the tables' backward has.
    """

    def __init__(self, dense: list[torch.nn.Parameter], collectives: ProcessGroupCollectives) -> None:
        """``dense``: the parameters outside the tables."""
        self._dense, self._collectives = dense, collectives

    def square(self, ids: Iterable[Tensor], gradients: Iterable[Tensor]) -> Tensor:
        """The squared norm (float64, the same on every rank, and on any number of them to rounding), not finite where
        a gradient is not. Collective.

        Of each table ``ids`` ``[n]`` that this rank looked up, repeats allowed, and ``gradients`` ``[n, D]`` of this
        rank's part of the loss. The gradients of the dense part must be averaged over ranks already.
        """
        own = [_square(self._summed_by_row(rows, gradient)) for rows, gradient in zip(ids, gradients, strict=True)]
        tables = self._collectives.sum(torch.stack(own).sum())
        dense = [_square(weight.grad) for weight in self._dense if weight.grad is not None]
        # TorchRec averages over ranks, too
        return tables / self._collectives.world_size**2 + sum(dense, start=torch.zeros_like(tables))

    def _summed_by_row(self, ids: Tensor, gradient: Tensor) -> Tensor:
        """The gradients, over all ranks, of rows whose id is this rank's modulo the number of ranks. Collective."""
        ids, gradient = _without_repeats(ids, gradient)
        if self._collectives.world_size == 1:
            return gradient
        owner = ids % self._collectives.world_size
        order = torch.argsort(owner, stable=True)
        sizes = torch.bincount(owner, minlength=self._collectives.world_size).tolist()
        received = [self._collectives.exchange(each[order], sizes) for each in (ids, gradient)]
        return _without_repeats(*received)[1]


def _without_repeats(ids: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    unique, inverse = torch.unique(ids, return_inverse=True)
    if len(unique) == len(ids):
        return ids, gradient
    return unique, gradient.new_zeros(len(unique), gradient.shape[1]).index_add_(0, inverse, gradient)


def _square(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(gradient, dtype=torch.float64) ** 2  # of float32: cannot overflow
