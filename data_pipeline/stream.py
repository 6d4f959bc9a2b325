"""Batches of a store: endless for training, each evaluable user once for evaluation."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import count

import numpy as np
import torch

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, LongHistories
from data_pipeline.batch import EvaluationBatch, SequenceBatch
from data_pipeline.lengths import training_lengths
from data_pipeline.manifest import Manifest, load_manifest
from data_pipeline.order import SEGMENT_USERS, Order, OrderKey, Window, bounds, lanes_of
from data_pipeline.prefetch import prefetch
from data_pipeline.ragged import offsets_of, ragged_index
from data_pipeline.read_ahead import ReadAhead
from data_pipeline.reader import FeatureDtype, Histories, HistoryReader
from data_pipeline.sequences import sequence_rule
from data_pipeline.split import SplitRule, Subset, split_rule, target_positions
from data_pipeline.weights import Weights
from data_pipeline.window import TrainHistories, TrainSegments


class SequenceStream:
    """The training batches of one rank.

    Joined over ranks, in rank order, the batch of a step is the same for every ``world_size``. The stream has no
    position of its own: the trained step is the position. A rank reads the row groups of its own lanes only.
    ``features`` of the store come along, None: all of them; ConfigError for one that it does not have.
    """

    def __init__(
        self, config: DataConfig, *, seed: int, rank: int, world_size: int, features: Sequence[str] | None = None
    ) -> None:
        self.manifest = load_manifest(config.store)
        self._lanes = lanes_of(rank, world_size, config.num_lanes)
        self._config = config
        rule = split_rule(config, self.manifest)
        key = OrderKey(
            self.manifest.fingerprint,
            rule.split.value,
            int(seed),
            config.global_batch_size,
            config.num_lanes,
            config.window_row_groups,
            self.manifest.num_users,
        )
        self._reader = HistoryReader(config.store, self.manifest, features)
        self._order = Order(key, _weights(config, self.manifest, rule, self._reader))
        self._segments = TrainSegments(self._reader, rule, sequence_rule(config))
        self.steps_per_epoch = self._order.steps_per_epoch
        """Global steps of an epoch; where users are counted the last one is smaller. The same on every rank."""

    def batches(self, start: int = 0) -> Generator[SequenceBatch, None, None]:
        """Batches of the global steps ``start``, ``start + 1``, ... without end, ``prefetch_batches`` made ahead.

        Starts at any step in the same time: it reads the window that holds the step and nothing before it.
        """
        return prefetch(self._batches(start), self._config.prefetch_batches)

    @property
    def num_bytes_read(self) -> int:
        """Bytes of the store's files that this rank has read so far, what it read ahead included."""
        return self._reader.num_bytes_read

    def tokens_by_lane(self, batch: SequenceBatch) -> np.ndarray:
        """Events of ``batch`` in each lane of the store, of this rank or not: int64 [num_lanes]."""
        lanes = self._order.lane_of(batch.user.numpy())
        num_lanes = self._config.num_lanes
        return np.bincount(lanes, batch.lengths.numpy(), minlength=num_lanes).astype(np.int64)

    def num_bytes_needed(self) -> float:
        """Bytes that the users of this rank take up in the store's files: what an epoch has to read."""
        return sum(self._reader.num_bytes_needed(*self._order.range_of(lane)) for lane in self._lanes)

    def _batches(self, step: int) -> Generator[SequenceBatch, None, None]:
        ahead = ReadAhead(
            self._coming_windows(step),
            self._segments.shuffled,
            self._segments.bytes_at_most,
            num_bytes=self._config.prefetch_mib * 2**20,
            num_places=len(self._lanes),
        )
        with closing(ahead):
            is_by_tokens = self._config.global_batch_tokens > 0
            cursors = [_LaneCursor(self._order, ahead.take, lane, is_by_tokens) for lane in self._lanes]
            while True:
                epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
                parts = [part for cursor in cursors for part in cursor.share(epoch, step_in_epoch)]
                yield _train_batch(parts, self._reader.feature_types)
                step += 1

    def _coming_windows(self, step: int) -> Iterator[Window]:
        """Windows in the order in which the batches from ``step`` on ask for them, without end."""
        if not any(self._order.windows(0, lane) for lane in self._lanes):
            return  # a rank without users would look for one for ever
        first_epoch, first_step = divmod(step, self.steps_per_epoch)
        for epoch in count(first_epoch):
            low = first_step if epoch == first_epoch else 0
            needed = [
                (max(self._order.step_of(lane, window.start), low), lane, index, window)
                for lane in self._lanes
                for index, window in enumerate(self._order.windows(epoch, lane))
                if window.end > self._order.share_of(lane, low)[0]
            ]
            yield from (window for *_, window in sorted(needed, key=lambda entry: entry[:3]))


class _LaneCursor:
    """The window of one lane that is in use; at most one is held."""

    def __init__(self, order: Order, take: Callable[[Window], TrainHistories], lane: int, is_by_tokens: bool) -> None:
        self._order, self._take, self._lane, self._is_by_tokens = order, take, lane, is_by_tokens
        self._epoch = -1
        self._windows: list[Window] = []
        self._starts: list[int] = []
        self._held = -1

    def share(self, epoch: int, step: int) -> list[TrainHistories]:
        """The lane's sequences of ``step``, from each window that holds some."""
        if epoch != self._epoch:
            self._epoch, self._held = epoch, -1
            self._windows = self._order.windows(epoch, self._lane)
            self._starts = [window.start for window in self._windows]
        low, high = self._order.share_of(self._lane, step)
        first = bisect_right(self._starts, low) - 1
        last = bisect_left(self._starts, high)
        return [
            self._rows(index, low, high) for index in range(max(first, 0), last) if self._windows[index].end > low
        ]

    def _rows(self, index: int, low: int, high: int) -> TrainHistories:
        window = self._windows[index]
        if index != self._held:
            self._histories = self._take(window)
            self._offsets = offsets_of(self._histories.lengths)
            self._places = self._offsets if self._is_by_tokens else np.arange(len(self._offsets))
            _check_size(window, int(self._places[-1]))
            self._held = index
        start, end = np.searchsorted(self._places[:-1], [low - window.start, high - window.start])
        return self._histories.rows(int(start), int(end), self._offsets)


def _check_size(window: Window, found: int) -> None:
    if found != window.end - window.start:
        raise DataError(
            f"users {window.segments[0][0]} ...: {found} tokens or sequences where the lengths file of the store "
            f"says {window.end - window.start}; delete the folder lengths in data.store, it is made again"
        )


def _weights(config: DataConfig, manifest: Manifest, rule: SplitRule, reader: HistoryReader) -> Weights | None:
    """What users weigh in a step; None where each counts one, which needs no lengths."""
    sequences = sequence_rule(config)
    if not config.global_batch_tokens and sequences.long_histories is LongHistories.LATEST:
        return None
    lengths = training_lengths(config.store, manifest, rule, reader)
    if config.global_batch_tokens:
        return Weights(lengths, sequences.num_tokens, config.global_batch_tokens)
    return Weights(lengths, sequences.num_sequences, config.global_batch_size)


def evaluation_batches(
    config: DataConfig,
    subset: Subset,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    features: Sequence[str] | None = None,
) -> Iterator[EvaluationBatch]:
    """Each evaluable user of ``subset`` once over all ranks, in user order; ranks may yield different numbers.

    A rank reads one contiguous range of users, with ``features`` of the store, None: all of them. Raises
    :class:`DataError` at the first batch if the store is broken.
    """
    if batch_size < 1:
        raise ConfigError(f"evaluation.batch_size={batch_size} must be at least 1")
    manifest = load_manifest(config.store)
    rule = split_rule(config, manifest)
    reader = HistoryReader(config.store, manifest, features)
    edges = bounds(manifest.num_users, world_size)
    chunk = -(-batch_size // SEGMENT_USERS) * SEGMENT_USERS
    for start in range(int(edges[rank]), int(edges[rank + 1]), chunk):
        histories = reader.read(start, min(start + chunk, int(edges[rank + 1])))
        positions = target_positions(rule, subset, histories.offsets, histories.timestamp)
        rows = np.flatnonzero(positions >= 0)
        for first in range(0, len(rows), batch_size):
            some = rows[first : first + batch_size]
            yield _evaluation_batch(histories, some, positions, config.max_history, reader.feature_types)


def _train_batch(parts: list[TrainHistories], feature_types: dict[str, FeatureDtype]) -> SequenceBatch:
    """The sequences of ``parts`` that have targets. The tensors own their memory: a view would keep a whole window
    alive and let a consumer write into it."""
    lengths = _end_to_end([part.lengths for part in parts])
    user = _end_to_end([part.user for part in parts])
    has_targets = lengths > 0
    return SequenceBatch(
        item=torch.from_numpy(_end_to_end([part.item for part in parts])),
        lengths=torch.from_numpy(lengths[has_targets]),
        user=torch.from_numpy(user[has_targets]),
        timestamp=torch.from_numpy(_end_to_end([part.timestamp for part in parts])),
        features={
            name: torch.from_numpy(_end_to_end([part.features[name] for part in parts], dtype))
            for name, dtype in feature_types.items()
        },
    )


def _end_to_end(parts: list[np.ndarray], dtype: FeatureDtype = np.int64) -> np.ndarray:
    """A new array, also of no part."""
    return np.concatenate([np.zeros(0, dtype), *parts], dtype=dtype)


def _evaluation_batch(
    histories: Histories,
    rows: np.ndarray,
    positions: np.ndarray,
    max_history: int,
    feature_types: dict[str, FeatureDtype],
) -> EvaluationBatch:
    starts, seen_lengths = histories.offsets[rows], positions[rows]
    lengths = np.minimum(seen_lengths, max_history)
    events = ragged_index(starts + seen_lengths - lengths, lengths)
    history = SequenceBatch(
        item=_int64(histories.item[events]),
        lengths=_int64(lengths),
        user=_int64(rows + histories.first_user),
        timestamp=_int64(histories.timestamp[events]),
        features={
            name: torch.from_numpy(histories.features[name][events].astype(dtype))
            for name, dtype in feature_types.items()
        },
    )
    return EvaluationBatch(
        history=history,
        target=_int64(histories.item[starts + seen_lengths]),
        seen=_int64(histories.item[ragged_index(starts, seen_lengths)]),
        seen_lengths=_int64(seen_lengths),
    )


def _int64(values: np.ndarray) -> torch.Tensor:
    """A tensor that owns its memory."""
    return torch.from_numpy(values.astype(np.int64))
