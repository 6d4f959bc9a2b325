"""Numbers for raw ids in order of first sight, so that what follows counts and looks up by position."""

from collections.abc import Iterable

import numpy as np
import polars as pl

from configs.errors import DataError
from data_pipeline.prepare.read.times import NS_PER_MS

_MAX_IDS = 2**31 - 1


class IdIndex:
    """Code 0, 1, ... of each raw id, in the order in which they came; ids known before keep their codes.

    Integers that span less than ``max_table`` are looked up in a table of that many int32, others by a join, which
    took three times as long in a trial (84 against 28 ns an id).
    """

    def __init__(self, known: pl.Series, max_table: int) -> None:
        self._parts, self._num_ids = [known], len(known)
        self._max_table = max_table if known.dtype == pl.Int64 else 0
        self._first = 0
        self._table = np.empty(0, dtype=np.int32)
        if len(known):
            self._learn(known, 0)

    def __len__(self) -> int:
        return self._num_ids

    @property
    def ids(self) -> pl.Series:
        """The raw id of each code."""
        self._parts = [pl.concat(self._parts, rechunk=True)]
        return self._parts[0]

    def codes_of(self, raw: pl.Series) -> tuple[np.ndarray, pl.Series]:
        """Codes of ``raw`` [T], int32, and the ids that were new in it, ascending, in order of their codes."""
        codes = self._look_up(raw)
        is_new = codes < 0
        new = raw.filter(pl.Series(is_new)).unique().sort()
        if len(new):
            if self._num_ids + len(new) > _MAX_IDS:
                raise DataError(f"the log holds more than {_MAX_IDS:,} items; the dense ids are int32")
            self._parts.append(new)
            self._learn(new, self._num_ids)
            self._num_ids += len(new)
            codes[is_new] = self._look_up(raw.filter(pl.Series(is_new)))
        return codes, new

    def _look_up(self, raw: pl.Series) -> np.ndarray:
        """Codes of ``raw``, -1 where it is not known."""
        if len(raw) == 0:
            return np.empty(0, dtype=np.int32)
        if self._max_table and self._reach(raw):
            return self._table[raw.to_numpy() - self._first]
        known = pl.DataFrame({"id": self.ids, "code": np.arange(self._num_ids, dtype=np.int32)})
        found = raw.alias("id").to_frame().join(known, on="id", how="left", maintain_order="left")
        return found["code"].fill_null(-1).to_numpy().copy()

    def _learn(self, new: pl.Series, first_code: int) -> None:
        if self._max_table and self._reach(new):
            self._table[new.to_numpy() - self._first] = np.arange(first_code, first_code + len(new), dtype=np.int32)

    def _reach(self, raw: pl.Series) -> bool:
        """Make the table reach over ``raw``; False, and no table from then on, where that is too wide."""
        values = raw.to_numpy()
        low, high = int(values.min()), int(values.max()) + 1
        if len(self._table):
            low, high = min(low, self._first), max(high, self._first + len(self._table))
        if high - low > self._max_table:
            self._max_table, self._table = 0, np.empty(0, dtype=np.int32)
            return False
        if high - low > len(self._table):
            table = np.full(high - low, -1, dtype=np.int32)
            table[self._first - low : self._first - low + len(self._table)] = self._table
            self._first, self._table = low, table
        return True


class ItemCounts:
    """Events of each item code, and the times of its first and last, in nanoseconds."""

    def __init__(self, num_items: int) -> None:
        self.count = np.zeros(num_items, dtype=np.int64)
        self.first_time = np.full(num_items, np.iinfo(np.int64).max)
        self.last_time = np.full(num_items, np.iinfo(np.int64).min)
        self.has_finer_times = False
        """Whether some time is no whole millisecond."""

    def add(self, events: pl.DataFrame) -> None:
        """Count ``events``."""
        item, time = events["item"].to_numpy(), events["timestamp"].to_numpy()
        self.count += np.bincount(item, minlength=len(self.count))
        self.has_finer_times = self.has_finer_times or bool((time % NS_PER_MS).any())
        np.minimum.at(self.first_time, item, time)
        np.maximum.at(self.last_time, item, time)


def item_counts_of(blocks: Iterable[pl.DataFrame], num_items: int) -> ItemCounts:
    """Counts over ``blocks`` of events."""
    counts = ItemCounts(num_items)
    for block in blocks:
        counts.add(block)
    return counts


def item_table(ids: pl.Series, counts: ItemCounts, num_old: int) -> tuple[pl.DataFrame, np.ndarray]:
    """``items.parquet``, and the dense id of each code, int32, -1 where no event of the item is left.

    Times become milliseconds. Dense ids go by descending count, ties by raw id ascending; the first ``num_old``
    codes, which a store has given out already, keep theirs whatever their counts are now.
    """
    table = pl.DataFrame(
        {
            "code": np.arange(len(ids), dtype=np.int32),
            "raw_item": ids,
            "count": counts.count,
            "first_time": counts.first_time // NS_PER_MS,
            "last_time": counts.last_time // NS_PER_MS,
        }
    )
    new = table[num_old:].filter(pl.col("count") > 0).sort(["count", "raw_item"], descending=[True, False])
    table = pl.concat([table[:num_old], new]).with_row_index("item").with_columns(pl.col("item").cast(pl.Int32))
    dense = np.full(len(ids), -1, dtype=np.int32)
    dense[table["code"].to_numpy()] = table["item"].to_numpy()
    return table.drop("code"), dense
