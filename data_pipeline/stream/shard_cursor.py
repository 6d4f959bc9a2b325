"""What the steps take of one data shard: the windows that are in use, and their sequences step by step."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from configs.errors import DataError
from data_pipeline.stream.crop import cropped
from data_pipeline.stream.jagged import offsets_of
from data_pipeline.stream.order import Order, ShardPart, Window
from data_pipeline.stream.shuffle_window import Ranges, Share, TrainHistories


class ShardCursor:
    """The windows of one data shard that a step needs: one, or where it begins in one and ends in another, both.

    The shares it gives are cut to what the rank takes of the data shard.
    """

    def __init__(
        self,
        order: Order,
        take: Callable[[Window], TrainHistories],
        part: ShardPart,
        *,
        is_by_tokens: bool,
        crop_fraction: float,
    ) -> None:
        self._order, self._take, self._part, self._is_by_tokens = order, take, part, is_by_tokens
        self._crop_fraction = crop_fraction
        self._epoch = -1
        self._windows: list[Window] = []
        self._starts: list[int] = []
        self._held: dict[int, _HeldWindow] = {}

    def open(self, epoch: int, step: int) -> int:
        """Hold what ``step`` needs; returns the first step after it, of this epoch or beyond, that needs more."""
        if epoch != self._epoch:
            self._epoch, self._held = epoch, {}
            self._windows = self._order.windows(epoch, self._part.shard)
            self._starts = [window.start for window in self._windows]
        low, high = self._order.starts(self._part.shard, step, step + 1).tolist()
        first, end = max(bisect_right(self._starts, low) - 1, 0), bisect_left(self._starts, high)
        needed = [index for index in range(first, end) if self._windows[index].end > low]
        self._held = {index: self._held.get(index) or self._taken(index) for index in needed}
        if end == len(self._windows):
            return self._order.steps_per_epoch
        return max(self._order.step_of(self._part.shard, self._starts[end]), step + 1)

    def shares(self, first: int, end: int) -> list[Share]:
        """The data shard's sequences of the steps [first, end), from each window that is held."""
        edges = self._order.starts(self._part.shard, first, end)
        taken = self._part.cut(edges[:-1], edges[1:])
        return [held.share(*taken) for held in self._held.values()]

    def _taken(self, index: int) -> "_HeldWindow":
        window = self._windows[index]
        histories = self._take(window)
        offsets = offsets_of(histories.lengths)
        places = offsets if self._is_by_tokens else np.arange(len(offsets))
        _check_size(window, int(places[-1]))
        if self._crop_fraction < 1:  # after the places: which sequences a step takes does not change
            histories = cropped(histories, self._crop_fraction, window.key)
            offsets = offsets_of(histories.lengths)
        return _HeldWindow(histories, offsets, places[:-1] + window.start)


@dataclass(slots=True)
class _HeldWindow:
    histories: TrainHistories
    offsets: np.ndarray
    """Running sums of the lengths, with a leading zero."""
    places: np.ndarray
    """Where each sequence starts in the data shard's order."""

    def share(self, low: np.ndarray, high: np.ndarray) -> Share:
        """The sequences that start at or after ``low`` and before ``high``, int64 [S] each, of every step."""
        rows = Ranges(np.searchsorted(self.places, low), np.searchsorted(self.places, high))
        return Share(self.histories, rows, Ranges(self.offsets[rows.first], self.offsets[rows.end]))


def _check_size(window: Window, found: int) -> None:
    if found != window.end - window.start:
        raise DataError(
            f"users {window.segments[0][0]} ...: {found} tokens or sequences where the lengths file of the store "
            f"says {window.end - window.start}; move the folder lengths out of data.store, it is made again"
        )
