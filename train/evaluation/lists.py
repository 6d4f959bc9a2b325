"""The best items of each ranked user, exact over the whole catalogue, kept on rank 0.

B queries of all ranks, v items of this rank's slice, N targets of a subset, k rows of a list.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.collectives import Collectives
from models.loss.item_shard import slice_of
from train.evaluation.ranking import Queries, Ranked
from train.top_items import ItemSlice, ListRule, Seen, TopItems, merged, top_items

LIST_LENGTH = 10


@dataclass(frozen=True, slots=True)
class Lists:
    """Of each user, in the order of their dense ids."""

    user: np.ndarray
    """int64 [N], ascending."""
    item: np.ndarray
    """int32 [N, k], best first; -1 where a list is shorter."""


def best_items(
    queries: Queries,
    item_vector: Tensor,
    num_items: int,
    leave_out_seen: bool,
    collectives: Collectives,
    rule: ListRule,
) -> TopItems:
    """The list of each of ``queries`` over all items, of which ``item_vector`` ``[v, D]`` are this rank's.
    Collective; the same on every rank."""
    own_slice = slice_of(num_items, collectives)
    item = torch.arange(own_slice.start, own_slice.stop, device=item_vector.device)
    owner, seen = queries.owner, queries.seen
    left_out = Seen(owner, seen) if leave_out_seen else Seen(owner[:0], seen[:0])
    own = top_items(queries.query, left_out, ItemSlice(item, item_vector, item), rule)
    parts = (
        collectives.gather(value).view(collectives.world_size, *value.shape)
        for value in (own.score, own.item, own.value)
    )
    return merged([TopItems(*part) for part in zip(*parts, strict=True)], rule)


class ListRecorder:
    """An ``on_ranked`` of :func:`train.evaluation.ranking.rank_targets`; other ranks keep nothing."""

    def __init__(self, num_items: int, leave_out_seen: bool, collectives: Collectives) -> None:
        self._num_items, self._leave_out_seen, self._collectives = num_items, leave_out_seen, collectives
        self._rule = ListRule(min(LIST_LENGTH, num_items))
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, queries: Queries, ranked: Ranked, item_vector: Tensor) -> None:
        """Find the lists of a batch. Collective."""
        found = best_items(queries, item_vector, self._num_items, self._leave_out_seen, self._collectives, self._rule)
        if self._collectives.rank == 0:
            user = queries.as_stored[:, 0]
            self._parts.append((user.cpu().numpy(), found.item.int().cpu().numpy()))

    def lists(self) -> Lists:
        """Those that were found, by user; none on other ranks than 0."""
        users = np.concatenate([np.zeros(0, np.int64), *(user for user, _ in self._parts)])
        items = np.concatenate([np.zeros((0, self._rule.k), np.int32), *(item for _, item in self._parts)])
        order = np.argsort(users, kind="stable")
        return Lists(users[order], items[order])
