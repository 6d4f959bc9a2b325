"""Exact ranking of a catalogue whose rows are spread over ranks: the rank of every target, equal at any world size.

B queries of all ranks, V items, v items of this rank's slice, D the width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from data_pipeline.batch import EvaluationBatch, SequenceBatch
from models.collectives import Collectives
from models.loss.item_shard import slice_of


class StopRequested(Exception):
    """A stop signal came while targets were ranked; raised on every rank after the same batch."""


@dataclass(frozen=True, slots=True)
class Queries:
    """What the batches of all ranks ask; the same on every rank."""

    query: Tensor
    """``[B, D]``."""
    target: Tensor
    """int64 ``[B]``."""
    as_stored: Tensor
    """User, target and number of events before it, as the store has them: int64 ``[B, 3]``."""
    owner: Tensor
    """Whose each of ``seen`` is, as a place among the queries: int64 ``[S]``."""
    seen: Tensor
    """Items of every event before the targets, repeats included: int64 ``[S]``."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where the targets of some queries stand; the same on every rank."""

    rank: Tensor
    """float64 ``[B]``, as of :func:`rank_targets`."""
    score: Tensor
    """Of the target, float32 ``[B]``."""
    is_seen: Tensor
    """Whether the target is an item of the history before it, whatever counts as a candidate: bool ``[B]``."""


OnRanked = Callable[[Queries, Ranked, Tensor], None]
"""Is told of each batch on every rank, with the vectors ``[v, D]`` of this rank's slice; may be collective."""


def ignore(queries: Queries, ranked: Ranked, item_vector: Tensor) -> None:
    """Of whom nothing but the ranks matters."""


def both(first: OnRanked, second: OnRanked) -> OnRanked:
    """One after the other."""

    def tell(queries: Queries, ranked: Ranked, item_vector: Tensor) -> None:
        first(queries, ranked, item_vector)
        second(queries, ranked, item_vector)

    return tell


@torch.no_grad()
def rank_targets(
    model: nn.Module,
    batches: Iterator[EvaluationBatch],
    *,
    num_items: int,
    leave_out_seen: bool,
    collectives: Collectives,
    device: torch.device,
    is_stop_requested: Callable[[], bool] = lambda: False,
    on_ranked: OnRanked = ignore,
) -> np.ndarray:
    """Rank of each user's target among its candidates, float64 ``[N]`` over all ranks, 1 is the best.

    Equal scores count half, so a model that cannot tell items apart gains nothing. A target that the user has seen is
    no candidate when ``leave_out_seen``: its rank is infinite. ``on_ranked`` is told of each batch, in the order of
    the ranks. Collective; ranks may bring different numbers of batches. Raises :class:`StopRequested` on all ranks,
    between two batches, where one of them was asked to stop.
    """
    model.eval()
    items = slice_of(num_items, collectives)
    item_vector = slice_vectors(model, items, device)
    found = []
    for queries in gathered_queries(model, batches, collectives, device, is_stop_requested):
        ranked = target_ranks(queries, item_vector, items, leave_out_seen, collectives)
        found.append(ranked.rank)
        on_ranked(queries, ranked, item_vector)
    return torch.cat(found).cpu().numpy() if found else np.zeros(0)


@torch.no_grad()
def gathered_queries(
    model: nn.Module,
    batches: Iterator[EvaluationBatch],
    collectives: Collectives,
    device: torch.device,
    is_stop_requested: Callable[[], bool],
) -> Iterator[Queries]:
    """Of each batch, what :func:`joined_queries` gives. Collective, as :func:`rank_targets`."""
    for local in batches_of_all_ranks(batches, collectives, device, is_stop_requested):
        yield joined_queries(model, local, collectives, device)


def batches_of_all_ranks(
    batches: Iterator[EvaluationBatch],
    collectives: Collectives,
    device: torch.device,
    is_stop_requested: Callable[[], bool],
) -> Iterator[EvaluationBatch]:
    """``batches`` on ``device``, then empty ones until no rank has more. Collective, as :func:`rank_targets`."""
    while True:
        batch = next(batches, None)
        asked = torch.tensor((batch is not None, is_stop_requested()), dtype=torch.int64, device=device)
        is_more, is_stop = collectives.max(asked).tolist()
        if is_stop:
            raise StopRequested
        if not is_more:
            return
        yield empty_batch(device) if batch is None else batch.to(device)


def joined_queries(
    model: nn.Module, local: EvaluationBatch, collectives: Collectives, device: torch.device
) -> Queries:
    """Of the ``local`` batches of all ranks, in rank order. Collective."""
    query = model(local.history, items_none(device), is_training=False).query
    owner = torch.repeat_interleave(torch.arange(len(local.target), device=device), local.seen_lengths)
    own = torch.tensor([[len(local.target), len(local.seen)]], device=device)
    num_targets, num_seen = collectives.gather(own, [1] * collectives.world_size).t().tolist()
    owner = owner + sum(num_targets[: collectives.rank])
    queries = collectives.gather(query, num_targets)
    asked = collectives.gather(torch.cat([local.target[:, None], local.as_stored], 1), num_targets)
    before = collectives.gather(torch.stack([owner, local.seen], 1), num_seen)
    return Queries(queries, asked[:, 0], asked[:, 1:], *before.unbind(1))


def target_ranks(
    queries: Queries, item_vector: Tensor, items: range, leave_out_seen: bool, collectives: Collectives
) -> Ranked:
    """Where the targets stand; ``item_vector`` ``[v, D]`` of this rank's ``items``. Collective."""
    target, owner, seen = queries.target, queries.owner, queries.seen
    score = queries.query @ item_vector.t()
    is_ours, own = scores_of_targets(score, target, items)
    own = collectives.sum(own)
    if leave_out_seen:
        is_here = (seen >= items.start) & (seen < items.stop)
        score[owner[is_here], seen[is_here] - items.start] = float("-inf")
    score[is_ours, target[is_ours] - items.start] = float("-inf")
    ahead = (score > own[:, None]).sum(1)
    equal = (score == own[:, None]).sum(1)
    ahead, equal = collectives.sum(torch.stack([ahead, equal]))
    rank = 1.0 + ahead.double() + 0.5 * equal.double()
    is_seen = torch.zeros(len(target), dtype=torch.bool, device=target.device)
    is_seen[owner[seen == target[owner]]] = True
    if leave_out_seen:
        rank[is_seen] = float("inf")
    rank[~torch.isfinite(own)] = float("inf")
    return Ranked(rank, own, is_seen)


def scores_of_targets(score: Tensor, target: Tensor, items: range) -> tuple[Tensor, Tensor]:
    """Which of ``target`` ``[B]`` are among ``items``, int64, and their scores of ``score`` ``[B, v]``, 0 for the
    others: ``[B]``."""
    is_ours = ((target >= items.start) & (target < items.stop)).nonzero().squeeze(1)
    own = score.new_zeros(len(target))
    own[is_ours] = score[is_ours, target[is_ours] - items.start]
    return is_ours, own


def items_none(device: torch.device) -> Tensor:
    """No candidates: the slice's vectors are looked up once, not with every batch."""
    return torch.zeros(0, dtype=torch.int64, device=device)


def slice_vectors(model: nn.Module, items: range, device: torch.device) -> Tensor:
    """The vectors ``[v, D]`` of this rank's ``items``. Collective."""
    candidates = torch.arange(items.start, items.stop, device=device)
    vectors: Tensor = model(empty_batch(device).history, candidates, is_training=False).candidate_vector
    return vectors


def empty_batch(device: torch.device) -> EvaluationBatch:
    """Nobody to rank: what a rank brings that has no more users than the others."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return EvaluationBatch(SequenceBatch(none, none, none, none), none, none, none)
