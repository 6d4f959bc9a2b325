"""From a batch to gradients: in one backward that updates the tables on its way, or in stages where they must wait.

fbgemm updates a table where its gradient arrives, inside backward. Whoever has to know all gradients first, or to add
up those of several micro-batches, goes backward in stages: down to the looked-up vectors, then into the tables.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from configs.schema import RunConfig
from data_pipeline.batch import SequenceBatch
from models.recommender import Recommender
from train.distributed.collectives import ProcessGroupCollectives
from train.gradient_norm import GradientNorm
from train.nonfinite import NonFiniteFilter
from train.objective import Objective, Task
from train.sharding import dense_parameters, uses_dense_kernel


@dataclass(slots=True)
class Gradients:
    """What a step's backward tells; the same on every rank."""

    loss: Tensor
    is_finite: bool
    """Whether loss and gradients were; if not, no table has changed, and the dense part must not."""
    norm: float | None
    """Of the whole gradient, before it is clipped; None where nobody asked."""
    is_clipped: bool | None = None
    """None where nothing is ever clipped."""


class Backward(Protocol):
    """Takes a step's loss backward."""

    def __call__(
        self,
        model: DistributedModelParallel,
        objective: Objective,
        batch: SequenceBatch,
        step: int,
        *,
        is_measured: bool,
    ) -> Gradients:
        """Fill the gradients of the dense part, and update the tables or fill theirs. ``is_measured``: the norm is
        asked for. Collective; waits for the device."""
        ...


def build_backward(
    sharded: DistributedModelParallel,
    recommender: Recommender,
    config: RunConfig,
    collectives: ProcessGroupCollectives,
    device: torch.device,
) -> Backward:
    """The backward that ``config`` needs, hooked into ``recommender``, the module inside of ``sharded``."""
    dense = list(dense_parameters(sharded).values())
    norm = GradientNorm(dense, collectives)
    if needs_stages(config):
        return StagedBackward(recommender, dense, norm, config, collectives, device)
    nonfinite = NonFiniteFilter(dense, collectives)
    recommender.on_look_up = nonfinite
    return WholeBackward(nonfinite, norm, device)


def needs_stages(config: RunConfig) -> bool:
    """Whether all gradients must be known before a table is updated: with a weight decay, too, since the zeros that
    keep what is not finite out of the tables would make their rows decay."""
    decays_in_backward = config.optimizer.table_weight_decay > 0 and not uses_dense_kernel(config)
    return config.optimizer.clip_norm > 0 or config.hardware.micro_batches > 1 or decays_in_backward


class WholeBackward:
    """One backward: the tables are updated while the ranks average the dense part."""

    def __init__(self, nonfinite: NonFiniteFilter, norm: GradientNorm, device: torch.device) -> None:
        self._nonfinite, self._norm, self._device = nonfinite, norm, device

    def __call__(
        self,
        model: DistributedModelParallel,
        objective: Objective,
        batch: SequenceBatch,
        step: int,
        *,
        is_measured: bool,
    ) -> Gradients:
        """As :class:`Backward`."""
        self._nonfinite.keeps_gradients = is_measured
        loss, reported = objective(model, batch.to(self._device), step)
        self._nonfinite.watch(reported)
        loss.backward()
        norm = float(self._norm.square(*self._nonfinite.kept()).sqrt()) if is_measured else None
        return Gradients(reported, self._nonfinite.is_finite(), norm)


class StagedBackward:
    """One look-up, micro-batches one after the other, the norm of their whole gradient, one update of the tables.

    The dense part is averaged here, without DDP, when it has the gradients of all micro-batches.
    """

    def __init__(
        self,
        recommender: Recommender,
        dense: list[torch.nn.Parameter],
        norm: GradientNorm,
        config: RunConfig,
        collectives: ProcessGroupCollectives,
        device: torch.device,
    ) -> None:
        self._recommender, self._dense, self._norm = recommender, dense, norm
        self._clip_norm, self._num_parts = config.optimizer.clip_norm, config.hardware.micro_batches
        self._is_fused = not uses_dense_kernel(config)
        self._collectives, self._device = collectives, device
        self._ids: dict[str, Tensor] = {}
        self._found: dict[str, Tensor] = {}
        self._leaves: dict[str, Tensor] = {}
        recommender.on_look_up = self._hold

    def __call__(
        self,
        model: DistributedModelParallel,
        objective: Objective,
        batch: SequenceBatch,
        step: int,
        *,
        is_measured: bool,
    ) -> Gradients:
        """As :class:`Backward`; ``model`` is left alone, its module called."""
        sizes = batch.sizes_of_parts(self._num_parts)  # of lengths that no device has to be waited for
        task = objective.task(batch.to(self._device), step, self._num_parts)
        loss = self._down_to_vectors(objective, task, sizes)
        average_gradients(self._dense, self._collectives)
        gradients = [_gradient_of(leaf) for leaf in self._leaves.values()]
        square = self._norm.square(self._ids.values(), gradients)
        norm = float(square.sqrt())  # waits for the device, as the next line does
        is_finite = bool(torch.isfinite(square) & torch.isfinite(loss))
        is_clipped = is_finite and norm > self._clip_norm if self._clip_norm else None
        share = self._clip_norm / norm if is_clipped else 1.0
        if is_clipped:
            for weight in self._dense:
                if weight.grad is not None:
                    weight.grad.mul_(share)
        self._into_tables(gradients, share, is_finite)
        return Gradients(loss, is_finite, norm, is_clipped)

    def _hold(self, ids: dict[str, Tensor], vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The looked-up ``vectors``, cut off from the tables; a stage of its own takes their gradients there."""
        if not torch.is_grad_enabled():
            return vectors
        self._ids, self._found = ids, vectors
        self._leaves = {name: vector.detach().requires_grad_() for name, vector in vectors.items()}
        return self._leaves

    def _down_to_vectors(self, objective: Objective, task: Task, sizes: list[tuple[int, int]]) -> Tensor:
        """The reported loss; the dense part has its gradients, and so have the looked-up vectors. Collective."""
        num_users, num_tokens = [users for users, _ in sizes], [tokens for _, tokens in sizes]
        event, candidate, user = self._recommender.look_up(task.batch, task.candidates)
        of_events, of_candidates = _leaves_of(event, num_tokens), _leaves_of(candidate, [len(candidate)])
        of_users = None if user is None else _leaves_of(user, num_users)
        totals = []
        for number, part in enumerate(task.batch.split(sizes)):
            own_user = None if of_users is None else of_users[number]
            found = self._recommender.predictions(part, of_events[number], of_candidates[0], own_user)
            total = objective.total(found, task)
            objective.backward_from(total, task).backward()
            totals.append(total.detach().double())
        looked_up = [(event, of_events), (candidate, of_candidates)]
        if user is not None and of_users is not None:
            looked_up.append((user, of_users))
        gradients = [torch.cat([_gradient_of(leaf) for leaf in parts]) for _, parts in looked_up]
        torch.autograd.backward([whole for whole, _ in looked_up], gradients)
        return objective.reported(torch.stack(totals).sum(), task)

    def _into_tables(self, gradients: list[Tensor], share: float, is_finite: bool) -> None:
        """Update fused tables, or fill the gradients of the others. Collective; of a bad step nothing arrives."""
        if not is_finite:
            gradients = [torch.zeros_like(each) for each in gradients]
        elif share < 1:
            gradients = [each * share for each in gradients]
        if is_finite or not self._is_fused:  # zeros would move fused rows that have a momentum or a decay
            torch.autograd.backward(list(self._found.values()), gradients)
        self._ids, self._found, self._leaves = {}, {}, {}


def average_gradients(weights: list[torch.nn.Parameter], collectives: ProcessGroupCollectives) -> None:
    """Average the gradients of ``weights`` over ranks, as DDP does; one that no rank has stays away. Collective."""
    if collectives.world_size == 1 or not weights:
        return
    has_gradient = weights[0].new_tensor([weight.grad is not None for weight in weights])
    flat = torch.cat([has_gradient, *(_gradient_of(weight).flatten() for weight in weights)])
    flat = collectives.sum(flat.detach() / collectives.world_size)
    is_there = (flat[: len(weights)] > 0).tolist()  # waits for the device
    parts = flat[len(weights) :].split([weight.numel() for weight in weights])
    for weight, part, is_some in zip(weights, parts, is_there, strict=True):
        weight.grad = part.view_as(weight) if is_some else None


def _leaves_of(vectors: Tensor, sizes: list[int]) -> list[Tensor]:
    """Parts of ``vectors``, each the end of its own backward."""
    return [part.detach().requires_grad_() for part in vectors.split(sizes)]


def _gradient_of(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
