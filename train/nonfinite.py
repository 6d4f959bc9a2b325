"""Keeps what is not finite out of the weights: a bad step changes nothing, on no rank."""

from typing import Any

import torch
from torch import Tensor

from models.collectives import Collectives


class NonFiniteFilter:
    """Stands between the tables and the rest of the model.

    The tables' update runs inside backward, so a bad gradient must be stopped on its way into them. There, before any
    table is touched, the ranks agree whether loss and gradients are finite; if not, the tables get zeros, which every
    fused optimizer but Adam (not had on a CPU) takes as no change.
    """

    def __init__(self, dense: list[torch.nn.Parameter], collectives: Collectives) -> None:
        """``dense``: the parameters outside the tables, whose gradients are looked at as well."""
        self._dense, self._collectives = dense, collectives
        self._loss = self._is_finite = torch.tensor(1.0)
        self.keeps_gradients = False
        """Whether :meth:`kept` has those of the next step."""
        self._ids: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []

    def watch(self, loss: Tensor) -> None:
        """``loss`` is about to go backward."""
        self._loss, self._is_finite = loss.detach(), torch.isfinite(loss.detach())

    def __call__(self, ids: dict[str, Tensor], vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The ``vectors`` that were looked up for ``ids``, by table, filtered on the way back."""
        self._ids = ids
        filtered: tuple[Tensor, ...] = _Filtered.apply(self, *vectors.values())
        return dict(zip(vectors, filtered, strict=True))

    def kept(self) -> tuple[list[Tensor], list[Tensor]]:
        """Ids and gradients of this rank by table, as they came to the filter; forgotten with this call."""
        gradients, self._gradients = self._gradients, []
        return list(self._ids.values()), gradients

    def agree(self, gradients: list[Tensor]) -> Tensor:
        """1 where ``gradients`` and those of the dense part are finite on every rank, else 0. Collective."""
        if self.keeps_gradients:
            self._gradients = gradients
        found = [self._loss, *gradients, *(each.grad for each in self._dense if each.grad is not None)]
        sums = torch.stack([each.detach().sum(dtype=torch.float64) for each in found])  # of float32: cannot overflow
        is_bad = (~torch.isfinite(sums)).any().float()
        self._is_finite = self._collectives.max(is_bad) == 0
        return self._is_finite

    def is_finite(self) -> bool:
        """Whether the step that went backward last is good, the same on every rank; waits for the device."""
        return bool(self._is_finite)


class _Filtered(torch.autograd.Function):
    """Identity forward; backward replaces gradients by zeros where a rank has one that is not finite."""

    @staticmethod
    def forward(ctx: Any, nonfinite: NonFiniteFilter, *vectors: Tensor) -> tuple[Tensor, ...]:
        ctx.nonfinite = nonfinite
        return tuple(vector.view_as(vector) for vector in vectors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        is_finite = ctx.nonfinite.agree(list(gradients))
        return None, *(torch.where(is_finite, each, torch.zeros_like(each)) for each in gradients)
