"""Queries to lists over the sharded table: every rank encodes some blocks, and scores all of them over its items.

A block is encoded by one thread alone, whose kernels do not know how many threads or ranks there are: its queries are
the same to the last bit on any number of them.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from configs.errors import DataError
from configs.schema import RunConfig
from configs.schema.recommend import Recommended, SeenItems, Similarity
from models.loss.item_shard import slice_of
from models.recommender import Recommender
from train.recommend.histories import QueryBlock, joined_histories, no_history
from train.state import TrainState
from train.top_items import ItemSlice, ListRule, Seen, TopItems, merged, ordered_sum, top_items

Value = TypeVar("Value")
Result = TypeVar("Result")


@dataclass(slots=True)
class BlockLists:
    """What was found for one block."""

    num_rows: int
    row: np.ndarray
    """int64 [N]: the rows of the block that have a list."""
    score: np.ndarray
    """float64 [N, k], -inf beyond the end of a list."""
    item: np.ndarray
    """int64 [N, k]."""


class Scorer:
    """A model in use; a context, which owns threads. On a GPU there is one thread, which starts its kernels."""

    def __init__(self, state: TrainState, config: RunConfig, candidate: np.ndarray, value: np.ndarray) -> None:
        """``candidate`` and ``value`` [C] as of a :class:`Catalogue`, the same on every rank. Collective."""
        model = state.model.module
        assert isinstance(model, Recommender), "what build_state shards"
        self._model, self._collectives, self._device = model.eval(), state.collectives, state.device
        self._is_cosine = (
            config.recommend.what is Recommended.SIMILAR_ITEMS and config.recommend.similarity is Similarity.COSINE
        )
        self._leaves_out_seen = leaves_out_seen(config)
        is_limited = bool(config.recommend.diverse_by)
        self._rule = ListRule(config.recommend.k, config.recommend.max_per_value if is_limited else 0)
        self.num_threads = config.hardware.num_threads if self._device.type == "cpu" else 1
        if self._device.type == "cpu":
            torch.set_num_threads(1)  # of a kernel; blocks are what threads share
        self._threads = ThreadPoolExecutor(self.num_threads, thread_name_prefix="score")
        own = slice_of(len(candidate), self._collectives)
        item = torch.from_numpy(candidate[own.start : own.stop]).to(self._device)
        vector = self._vectors_of(item)
        self._items = ItemSlice(item, vector, torch.from_numpy(value[own.start : own.stop]).to(self._device))

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(wait=True)
        if self._device.type == "cpu":
            torch.set_num_threads(self.num_threads)

    @torch.no_grad()
    def lists(self, blocks: list[QueryBlock]) -> list[BlockLists]:
        """The lists of the blocks of all ranks, in rank order, on rank 0; none on others.

        Every rank brings as many blocks, empty ones where there are no more. Collective. Raises
        :class:`DataError` on every rank for a model that gives no numbers.
        """
        queries = self._queries(blocks)
        sizes = torch.tensor([[block.num_rows, len(block.row), len(block.seen_item)] for block in blocks])
        all_sizes = self._gathered(sizes).cpu()
        query, row = self._gathered(torch.cat(queries)), self._gathered(torch.cat([block.row for block in blocks]))
        owner = self._gathered(torch.cat([block.seen_owner for block in blocks]))
        seen = self._gathered(torch.cat([block.seen_item for block in blocks]))
        if not torch.isfinite(query).all():
            raise DataError("the model gives scores that are not finite; train again with a lower optimizer.lr")
        split = all_sizes.tolist()
        queries = list(query.split([part[1] for part in split]))
        found = self._mapped(
            self._top_of,
            zip(
                queries,
                owner.split([part[2] for part in split]),
                seen.split([part[2] for part in split]),
                strict=True,
            ),
        )
        names = ("score", "item", "value")
        score, item, value = (self._by_rank(torch.cat([getattr(each, name) for each in found])) for name in names)
        if self._collectives.rank:
            return []
        parts = [TopItems(*each) for each in zip(score, item, value, strict=True)]
        whole = merged(parts, self._rule)
        ends = [part[1] for part in split]
        pieces = zip(
            [part[0] for part in split], row.split(ends), whole.score.split(ends), whole.item.split(ends), strict=True
        )
        return [BlockLists(size, *(each.cpu().numpy() for each in rest)) for size, *rest in pieces]

    def _queries(self, blocks: list[QueryBlock]) -> list[Tensor]:
        """Of each block [N, D]. Collective: one look at the tables for all of them."""
        history = joined_histories([block.history for block in blocks])
        items = torch.cat([block.item for block in blocks])
        event, vectors, user = self._model.look_up(history.to(self._device), items.to(self._device))
        vectors = self._normalised(vectors)
        events = event.split([block.history.num_tokens for block in blocks])
        of_items = vectors.split([len(block.item) for block in blocks])
        counts = [block.history.num_users for block in blocks]
        users = user.split(counts) if user is not None else [None] * len(blocks)

        def query_of(given: tuple[QueryBlock, Tensor, Tensor, Tensor | None]) -> Tensor:
            block, event, vector, user = given
            if not block.history.num_users:
                return vector
            with torch.no_grad():  # of this thread
                return self._model.last_queries(block.history.to(self._device), event, user)

        return self._mapped(query_of, zip(blocks, events, of_items, users, strict=True))

    def _top_of(self, given: tuple[Tensor, Tensor, Tensor]) -> TopItems:
        query, owner, seen = given
        if not self._leaves_out_seen:
            owner, seen = owner[:0], seen[:0]
        with torch.no_grad():
            return top_items(query, Seen(owner, seen), self._items, self._rule)

    def _by_rank(self, value: Tensor) -> Tensor:
        """``[ranks, N, k]`` of what each rank found of the same queries."""
        return self._collectives.gather(value).view(self._collectives.world_size, *value.shape)

    def _gathered(self, value: Tensor) -> Tensor:
        return self._collectives.gather(value.to(self._device))

    @torch.no_grad()
    def _vectors_of(self, item: Tensor) -> Tensor:
        _, vectors, _ = self._model.look_up(no_history().to(self._device), item)
        return self._normalised(vectors)

    def _normalised(self, vectors: Tensor) -> Tensor:
        """For the cosine, vectors of length 1 to float32's precision; one without a length stays as it is."""
        if not self._is_cosine:
            return vectors
        exact = vectors.double()
        length = ordered_sum(exact * exact).sqrt()[:, None]
        return torch.where(length > 0, exact / length, exact).float()

    def _mapped(self, function: Callable[[Value], Result], values: Iterable[Value]) -> list[Result]:
        return list(self._threads.map(function, values)) if self.num_threads > 1 else [*map(function, values)]


def leaves_out_seen(config: RunConfig) -> bool:
    """Whether a user's own items are left out; an item is never its own neighbour."""
    wanted = config.recommend
    if wanted.what is Recommended.SIMILAR_ITEMS or wanted.leave_out_seen is SeenItems.LEFT_OUT:
        return True
    return wanted.leave_out_seen is SeenItems.AS_EVALUATED and config.evaluation.leave_out_seen
