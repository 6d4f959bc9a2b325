"""The best items of each query over the items of one rank, and over all ranks: exact, the same on any number of them.

Scores of float32 products hang on the shapes and threads of the product, by their last bits. So they only choose a
few candidates; those are scored again in float64 by sums of one fixed order, and a list counts as found where nothing
outside of the candidates can reach it, by the bound on a float32 product's error. Equal scores: the smaller id first.

B queries, v items of this rank's slice, D the width, W candidates of a query, k rows of a list.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_SCORES = 2**24
"""Scores of a float32 product that are held at once."""
EXACT_PRODUCTS = 2**23
"""Float64 products of candidates that are held at once."""
SPARE = 16
"""Candidates beyond k: most lists are found with them at once."""
UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True, slots=True)
class ItemSlice:
    """The candidates that one rank scores."""

    item: Tensor
    """int64 [v], ascending."""
    vector: Tensor
    """float32 [v, D]."""
    value: Tensor
    """int64 [v]: items with the same share a limit, as :class:`ListRule` has it."""


@dataclass(frozen=True, slots=True)
class ListRule:
    """What a list is: its ``k`` best items of which at most ``max_per_value`` have the same value; 0: any number."""

    k: int
    max_per_value: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """Items that are no candidates: ``item`` int64 [S] of query ``owner`` int64 [S]."""

    owner: Tensor
    item: Tensor


@dataclass(frozen=True, slots=True)
class TopItems:
    """Best first; where a list is shorter the score is -inf and the item -1."""

    score: Tensor
    """float64 [B, k]."""
    item: Tensor
    """int64 [B, k]."""
    value: Tensor
    """int64 [B, k]."""


def top_items(query: Tensor, seen: Seen, items: ItemSlice, rule: ListRule) -> TopItems:
    """The list of each of ``query`` float32 [B, D] over ``items``."""
    num_items, num_queries = len(items.item), len(query)
    found = _none(num_queries, rule.k, query.device)
    if num_items == 0 or num_queries == 0:
        return found
    owner, place = _places(seen, items)
    error = _error_bound(query, items.vector)
    rows = torch.arange(num_queries, device=query.device)
    width = min(num_items, (4 * rule.k if rule.max_per_value else rule.k) + SPARE)
    while len(rows):
        is_asked = torch.zeros(num_queries, dtype=torch.bool, device=query.device)
        is_asked[rows] = True
        row_of = torch.cumsum(is_asked, 0) - 1
        masked = row_of[owner[is_asked[owner]]], place[is_asked[owner]]
        score, where = _candidates(query[rows], masked, items.vector, width)
        outside = (
            score[:, -1].double() + error[rows] if width < num_items else score.new_full((), -torch.inf).double()
        )
        exact = _exact_scores(query[rows], items.vector, where).masked_fill(score == -torch.inf, -torch.inf)
        listed, is_whole = _listed(exact, items.item[where], items.value[where], rule, outside)
        done = rows[is_whole]
        found.score[done], found.item[done] = listed.score[is_whole], listed.item[is_whole]
        found.value[done] = listed.value[is_whole]
        rows, width = rows[~is_whole], min(num_items, 4 * width)
    return found


def merged(parts: list[TopItems], rule: ListRule) -> TopItems:
    """The lists over all ranks' items, of those over each rank's."""
    score, item, value = (
        torch.cat([getattr(part, name) for part in parts], 1) for name in ("score", "item", "value")
    )
    outside = score.new_full((len(score),), -torch.inf)
    return _listed(score, item, value, rule, outside)[0]


def _none(num_queries: int, k: int, device: torch.device) -> TopItems:
    score = torch.full((num_queries, k), -torch.inf, dtype=torch.float64, device=device)
    return TopItems(score, torch.full_like(score, -1, dtype=torch.int64), torch.full_like(score, -1).long())


def _places(seen: Seen, items: ItemSlice) -> tuple[Tensor, Tensor]:
    """Owner and place in ``items`` of those of ``seen`` that are there."""
    place = torch.searchsorted(items.item, seen.item).clamp(max=len(items.item) - 1)
    is_here = items.item[place] == seen.item
    return seen.owner[is_here], place[is_here]


def _error_bound(query: Tensor, vector: Tensor) -> Tensor:
    """[B]: how far a float32 product of ``query`` with any of ``vector`` may be from the true one (Higham, Accuracy
    and Stability of Numerical Algorithms, 3.1), doubled for what float64 adds."""
    width = query.shape[1]
    relative = width * UNIT_ROUNDOFF / (1 - width * UNIT_ROUNDOFF)
    longest = vector.double().norm(dim=1).max()
    return 2 * relative * query.double().norm(dim=1) * longest + 1e-30


def _candidates(query: Tensor, masked: tuple[Tensor, Tensor], vector: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The ``width`` best float32 scores [B, W] of each query, descending, and their places; -inf for ``masked``."""
    owner, place = masked
    step = max(BLOCK_SCORES // max(len(query), 1), 1024)
    score, where = query.new_zeros(len(query), 0), place.new_zeros(len(query), 0)
    for low in range(0, len(vector), step):
        block = query @ vector[low : low + step].t()
        is_here = (place >= low) & (place < low + step)
        block[owner[is_here], place[is_here] - low] = -torch.inf
        best = block.topk(min(width, block.shape[1]), dim=1)
        score, where = torch.cat([score, best.values], 1), torch.cat([where, best.indices + low], 1)
        if score.shape[1] > width or low == 0:
            best = score.topk(min(width, score.shape[1]), dim=1)
            score, where = best.values, where.gather(1, best.indices)
    best = score.topk(min(width, score.shape[1]), dim=1)
    return best.values, where.gather(1, best.indices)


def _exact_scores(query: Tensor, vector: Tensor, where: Tensor) -> Tensor:
    """Float64 products [B, W]: those of two float32 numbers are exact, and they are added in one fixed order."""
    step = max(EXACT_PRODUCTS // (where.shape[1] * query.shape[1]), 1)
    parts = []
    for low in range(0, len(query), step):
        some = vector[where[low : low + step]].double() * query[low : low + step, None].double()
        parts.append(ordered_sum(some))
    return torch.cat(parts)


def ordered_sum(values: Tensor) -> Tensor:
    """The sum over the last dim by halves: additions of elements alone, so that no kernel chooses their order."""
    while (width := values.shape[-1]) > 1:
        half = width // 2
        folded = values[..., :half] + values[..., half : 2 * half]
        values = torch.cat([folded, values[..., 2 * half :]], -1) if width % 2 else folded
    return values[..., 0]


def _listed(exact: Tensor, item: Tensor, value: Tensor, rule: ListRule, outside: Tensor) -> tuple[TopItems, Tensor]:
    """The lists of candidates [B, W], and which of them no item beyond the candidates can change: those score at most
    ``outside`` [B]."""
    order = torch.argsort(item, dim=1, stable=True)
    order = order.gather(1, torch.argsort(exact.gather(1, order), dim=1, descending=True, stable=True))
    exact, item, value = (each.gather(1, order) for each in (exact, item, value))
    is_listed = exact > outside.view(-1, 1)
    if rule.max_per_value:
        is_listed &= _place_among_equals(value) < rule.max_per_value
    place = torch.cumsum(is_listed, 1) - 1
    is_listed &= place < rule.k
    found = _none(len(exact), rule.k, exact.device)
    row, column = is_listed.nonzero(as_tuple=True)
    target = (row, place[row, column])
    for out, each in ((found.score, exact), (found.item, item), (found.value, value)):
        out[target] = each[row, column]
    return found, (is_listed.sum(1) == rule.k) | (outside == -torch.inf)


def _place_among_equals(value: Tensor) -> Tensor:
    """[B, W]: how many of the same value lie before each."""
    order = torch.argsort(value, dim=1, stable=True)
    in_order = value.gather(1, order)
    place = torch.arange(value.shape[1], device=value.device).expand_as(value)
    is_first = torch.ones_like(in_order, dtype=torch.bool)
    is_first[:, 1:] = in_order[:, 1:] != in_order[:, :-1]
    run = place - torch.cummax(place * is_first, 1).values
    return torch.empty_like(run).scatter_(1, order, run)
