"""Blocks of queries: which users or items a block holds is a function of its number, not of ranks.

B rows of a block, of which N have a history.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import polars as pl
import torch
from torch import Tensor

from configs.schema import RunConfig
from configs.schema.recommend import CountedHistory
from data_pipeline.batch import SequenceBatch
from data_pipeline.split import Subset, lengths_before, split_rule
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.raw_users import RawUsers
from data_pipeline.stream.jagged import jagged_index, offsets_of
from train.recommend.asked import Rows, with_new_lengths

SUBSETS = {
    CountedHistory.ALL: None,
    CountedHistory.BEFORE_VALIDATION: Subset.VALID,
    CountedHistory.BEFORE_TEST: Subset.TEST,
}
SEGMENT_USERS = 1024
"""Users that are read at once where a list of users is asked for: those between them are dropped at once."""


@dataclass(kw_only=True, slots=True)
class QueryBlock:
    """Some rows of the output before they are scored."""

    num_rows: int = 0
    row: Tensor = field(default_factory=lambda: _int64(np.zeros(0)))
    """int64 [N]: rows of the block that have a query; the others get popular items."""
    history: SequenceBatch = field(default_factory=lambda: no_history())
    """The newest events of these rows."""
    item: Tensor = field(default_factory=lambda: _int64(np.zeros(0)))
    """int64 [N] in place of histories: the query is the item's own vector."""
    seen_owner: Tensor = field(default_factory=lambda: _int64(np.zeros(0)))
    """int64 [S]: which of the N rows has seen ``seen_item``."""
    seen_item: Tensor = field(default_factory=lambda: _int64(np.zeros(0)))


class Queries(Protocol):
    """All rows, cut into blocks of ``recommend.batch_size``."""

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        ...

    def block(self, first: int, end: int) -> QueryBlock:
        """Rows [first, end). May be called on another thread than :meth:`raw_of`."""
        ...

    def raw_of(self, first: int, end: int) -> pl.Series:
        """The raw ids of rows [first, end)."""
        ...


class StoreHistories:
    """Users of a store, all or those of ``users`` (ascending), by the events that ``recommend.history`` counts."""

    def __init__(self, config: RunConfig, manifest: Manifest, users: np.ndarray | None, rows: Rows) -> None:
        self._rows = rows
        self._users, self._max_history = users, config.data.max_history
        self._subset = SUBSETS[config.recommend.history]
        self._rule = None if self._subset is None else split_rule(config.data, manifest)
        self._needs_row = config.model.knows_users_alone
        self._reader = HistoryReader(config.data.store, manifest, config.model.event_features)
        self._raw = RawUsers(config.data.store, manifest)
        self.num_rows = manifest.num_users if users is None else len(users)

    def block(self, first: int, end: int) -> QueryBlock:
        """Rows [first, end)."""
        if self._users is None:
            return self._read(np.arange(first, end, dtype=np.int64), first, end)
        users = self._users[first:end]
        segment = users // SEGMENT_USERS
        cuts = [0, *(np.flatnonzero(np.diff(segment)) + 1), len(users)]
        parts = [
            self._read(users[low:high], int(users[low]), int(users[high - 1]) + 1)
            for low, high in itertools.pairwise(cuts)
        ]
        return joined(parts)

    def raw_of(self, first: int, end: int) -> pl.Series:
        """The raw ids of rows [first, end)."""
        users = np.arange(first, end, dtype=np.int64) if self._users is None else self._users[first:end]
        return self._raw.raw_of(users)

    def _read(self, users: np.ndarray, start: int, end: int) -> QueryBlock:
        histories = self._reader.read(start, end)
        row = users - start
        if self._rule is None:
            lengths = np.diff(histories.offsets)
        else:
            lengths = lengths_before(self._rule, self._subset, histories.offsets, histories.timestamp)
        types = self._reader.feature_types
        features = {name: values.astype(types[name]) for name, values in histories.features.items()}
        starts, lengths, item, time = histories.offsets[row], lengths[row], histories.item, histories.timestamp
        if self._rows.item is not None:
            known, starts, lengths = with_new_lengths(self._rows.item, item, starts, lengths)
            item, time = self._rows.item[item[known]], time[known]
            features = {name: values[known] for name, values in features.items()}
        if self._rows.user is not None:
            users = self._rows.user[users]
        return block_of(users, starts, lengths, item, time, self._max_history, features, self._needs_row)


@dataclass(slots=True)
class GivenHistories:
    """Histories of a file: events end to end, a row's from ``offsets[row]`` on."""

    raw: pl.Series
    offsets: np.ndarray
    item: np.ndarray
    user: np.ndarray
    """Rows of the model's user table, or -1."""
    features: dict[str, np.ndarray]
    """By name, codes int64 or numbers float32 of each event."""
    max_history: int
    needs_row: bool
    """Whether the model has nothing to say of a user without a row."""

    @property
    def num_rows(self) -> int:
        """Users of the file."""
        return len(self.raw)

    def block(self, first: int, end: int) -> QueryBlock:
        """Rows [first, end)."""
        lengths = np.diff(self.offsets[first : end + 1])
        times = np.zeros(len(self.item), dtype=np.int64)
        return block_of(
            self.user[first:end],
            self.offsets[first:end],
            lengths,
            self.item,
            times,
            self.max_history,
            self.features,
            self.needs_row,
        )

    def raw_of(self, first: int, end: int) -> pl.Series:
        """The raw ids of rows [first, end)."""
        return self.raw[first:end]


@dataclass(slots=True)
class EveryItem:
    """Each item of the store, which is not its own neighbour."""

    raw: pl.Series

    @property
    def num_rows(self) -> int:
        """Items of the store."""
        return len(self.raw)

    def block(self, first: int, end: int) -> QueryBlock:
        """Rows [first, end)."""
        row, item = _int64(np.arange(end - first)), _int64(np.arange(first, end))
        return QueryBlock(num_rows=end - first, row=row, item=item, seen_owner=row, seen_item=item)

    def raw_of(self, first: int, end: int) -> pl.Series:
        """The raw ids of rows [first, end)."""
        return self.raw[first:end]


def block_of(
    user: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    item: np.ndarray,
    timestamp: np.ndarray,
    max_history: int,
    features: dict[str, np.ndarray],
    needs_row: bool,
) -> QueryBlock:
    """Rows of ``user`` [B], whose events are ``lengths`` [B] from ``starts`` [B] on; ``needs_row``: a user whom the
    user table does not know, -1, has no query."""
    row = np.flatnonzero((lengths > 0) & (user >= 0) if needs_row else lengths)
    starts, lengths = starts[row], lengths[row]
    newest = np.minimum(lengths, max_history)
    events = jagged_index(starts + lengths - newest, newest)
    history = SequenceBatch(
        item=_int64(item[events]),
        lengths=_int64(newest),
        user=_int64(user[row]),
        timestamp=_int64(timestamp[events]),
        features={name: torch.from_numpy(values[events]) for name, values in features.items()},
    )
    return QueryBlock(
        num_rows=len(user),
        row=_int64(row),
        history=history,
        seen_owner=_int64(np.repeat(np.arange(len(row)), lengths)),
        seen_item=_int64(item[jagged_index(starts, lengths)]),
    )


def joined(blocks: Sequence[QueryBlock]) -> QueryBlock:
    """Blocks of histories one after another as one."""
    if len(blocks) == 1:
        return blocks[0]
    first_row = offsets_of(np.array([block.num_rows for block in blocks]))
    first_owner = offsets_of(np.array([len(block.row) for block in blocks]))
    return QueryBlock(
        num_rows=int(first_row[-1]),
        row=torch.cat([block.row + int(first) for block, first in zip(blocks, first_row, strict=False)]),
        history=joined_histories([block.history for block in blocks]),
        seen_owner=torch.cat(
            [block.seen_owner + int(first) for block, first in zip(blocks, first_owner, strict=False)]
        ),
        seen_item=torch.cat([block.seen_item for block in blocks]),
    )


def joined_histories(batches: Sequence[SequenceBatch]) -> SequenceBatch:
    """The histories of ``batches`` one after another; a batch without events may lack their features."""
    names = {name for batch in batches for name in batch.features}
    return SequenceBatch(
        item=torch.cat([batch.item for batch in batches]),
        lengths=torch.cat([batch.lengths for batch in batches]),
        user=torch.cat([batch.user for batch in batches]),
        timestamp=torch.cat([batch.timestamp for batch in batches]),
        features={
            name: torch.cat([batch.features[name] for batch in batches if name in batch.features])
            for name in sorted(names)
        },
    )


def no_history() -> SequenceBatch:
    """A batch of nobody."""
    none = torch.zeros(0, dtype=torch.int64)
    return SequenceBatch(none, none, none, none)


def _int64(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
