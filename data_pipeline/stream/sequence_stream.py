"""Batches of a store: endless for training, each evaluable user once for evaluation."""

import itertools
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np
import torch

from configs.errors import ConfigError
from configs.schema import DataConfig, LongHistories
from data_pipeline.batch import EvaluationBatch, SequenceBatch
from data_pipeline.split import HeldOut, SplitRule, Subset, split_rule, targets_in
from data_pipeline.store.history_reader import FeatureDtype, Histories, HistoryReader
from data_pipeline.store.manifest import Manifest, load_manifest
from data_pipeline.stream.cumulative_weights import CumulativeWeights
from data_pipeline.stream.jagged import jagged_index, offsets_of
from data_pipeline.stream.order import SEGMENT_USERS, Order, OrderKey, Window, bounds, parts_of_rank, segments_in
from data_pipeline.stream.prefetch import prefetch
from data_pipeline.stream.read_ahead import ReadAhead
from data_pipeline.stream.sequences import sequence_rule
from data_pipeline.stream.shard_cursor import ShardCursor
from data_pipeline.stream.shuffle_window import Ranges, Share, TrainSegments
from data_pipeline.stream.training_lengths import training_lengths

BLOCK_TOKENS = 2**16
"""Events of the batches that are cut at once; a larger batch is cut alone."""


class SequenceStream:
    """The training batches of one rank.

    Joined over ranks, in rank order, the batch of a step is the same for every ``world_size``. The stream has no
    position of its own: the trained step is the position. A rank reads the row groups of its own data shards
    only; more ranks than data shards take parts of them.
    ``features`` of the store come along, None: all of them; ConfigError for one that it does not have. The events
    that are ``held_out`` are in no batch; which users form a step does not depend on them.
    """

    def __init__(
        self,
        config: DataConfig,
        *,
        seed: int,
        rank: int,
        world_size: int,
        features: Sequence[str] | None = None,
        held_out: HeldOut = HeldOut.VALID_AND_TEST,
    ) -> None:
        self.manifest = load_manifest(config.store, config.version)
        self._parts = parts_of_rank(rank, world_size, config.num_data_shards)
        self._config = config
        rule = split_rule(config, self.manifest, held_out)
        key = OrderKey(
            self.manifest.fingerprint,
            rule.split.value,
            int(seed),
            config.global_batch_size,
            config.num_data_shards,
            segments_in(config.shuffle_window_users),
            self.manifest.num_users,
        )
        self._reader = HistoryReader(config.store, self.manifest, features)
        self._order = Order(key, _weights(config, self.manifest, rule, self._reader))
        self._segments = TrainSegments(self._reader, rule, sequence_rule(config))
        self.steps_per_epoch = self._order.steps_per_epoch
        """Global steps of an epoch; where users are counted the last one is smaller. The same on every rank."""

    def batches(self, start: int = 0) -> Generator[SequenceBatch, None, None]:
        """Batches of the global steps ``start``, ``start + 1``, ... without end.

        At least ``prefetch_batches`` are made ahead, small ones some at a time. Starts at any step in the same time:
        it reads the window that holds the step and nothing before it.
        """
        num_ahead = -(-self._config.prefetch_batches // self._steps_per_block)
        with closing(prefetch(self._blocks(start), num_ahead)) as blocks:
            for block in blocks:
                yield from block

    @property
    def num_bytes_read(self) -> int:
        """Bytes of the store's files that this rank has read so far, what it read ahead included."""
        return self._reader.num_bytes_read

    def tokens_by_shard(self, batch: SequenceBatch) -> np.ndarray:
        """Events of ``batch`` in each data shard of the store, of this rank or not: int64 [num_data_shards]."""
        shards = self._order.shard_of(batch.user.numpy())
        num_data_shards = self._config.num_data_shards
        return np.bincount(shards, batch.lengths.numpy(), minlength=num_data_shards).astype(np.int64)

    def num_bytes_needed(self) -> float:
        """Bytes that the users of this rank take up in the store's files: what an epoch has to read."""
        return sum(self._reader.num_bytes_needed(*self._order.range_of(part.shard)) for part in self._parts)

    @property
    def _steps_per_block(self) -> int:
        """Batches that are cut at once, so that what a batch costs beside its events is shared by many small ones."""
        of_store = self.manifest.num_events / self.steps_per_epoch
        at_most = self._config.global_batch_size * (self._config.max_history + 1)
        shards = sum((part.end - part.first) / part.num_parts for part in self._parts)
        tokens = (self._config.global_batch_tokens or min(of_store, at_most)) * shards
        return max(int(BLOCK_TOKENS * self._config.num_data_shards / max(tokens, 1)), 1)

    def _blocks(self, step: int) -> Generator[list[SequenceBatch], None, None]:
        """Batches from ``step`` on, some at a time; a block ends with an epoch or where a data shard needs a new
        window."""
        ahead = ReadAhead(
            self._coming_windows(step),
            self._segments.shuffled,
            self._segments.bytes_at_most,
            num_bytes=self._config.prefetch_mib * 2**20,
            num_places=len(self._parts),
        )
        with closing(ahead):
            cursors = [
                ShardCursor(
                    self._order,
                    ahead.take,
                    part,
                    is_by_tokens=self._config.global_batch_tokens > 0,
                    crop_fraction=self._config.crop_fraction,
                )
                for part in self._parts
            ]
            while True:
                epoch, first = divmod(step, self.steps_per_epoch)
                ends = [cursor.open(epoch, first) for cursor in cursors]
                end = min(*ends, first + self._steps_per_block, self.steps_per_epoch)
                shares = [share for cursor in cursors for share in cursor.shares(first, end)]
                yield _train_batches(shares, end - first, self._reader.feature_types)
                step += end - first

    def _coming_windows(self, step: int) -> Iterator[Window]:
        """Windows in the order in which the batches from ``step`` on ask for them, without end."""
        shards = [part.shard for part in self._parts]
        if not any(self._order.windows(0, shard) for shard in shards):
            return  # a rank without users would look for one for ever
        first_epoch, first_step = divmod(step, self.steps_per_epoch)
        for epoch in itertools.count(first_epoch):
            low = first_step if epoch == first_epoch else 0
            places = {shard: int(self._order.starts(shard, low, low)[0]) for shard in shards}
            needed = [
                (max(self._order.step_of(shard, window.start), low), shard, index, window)
                for shard in shards
                for index, window in enumerate(self._order.windows(epoch, shard))
                if window.end > places[shard]
            ]
            yield from (window for *_, window in sorted(needed, key=lambda entry: entry[:3]))


def _weights(
    config: DataConfig, manifest: Manifest, rule: SplitRule, reader: HistoryReader
) -> CumulativeWeights | None:
    """What users weigh in a step; None where each counts one, which needs no lengths."""
    sequences = sequence_rule(config)
    if not config.global_batch_tokens and sequences.long_histories is LongHistories.LATEST:
        return None
    lengths = training_lengths(config.store, manifest, rule, reader)
    if config.global_batch_tokens:
        return CumulativeWeights(lengths, sequences.num_tokens, config.global_batch_tokens)
    return CumulativeWeights(lengths, sequences.num_sequences, config.global_batch_size)


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
    manifest = load_manifest(config.store, config.version)
    rule = split_rule(config, manifest)
    reader = HistoryReader(config.store, manifest, features)
    edges = bounds(manifest.num_users, world_size)
    chunk = -(-batch_size // SEGMENT_USERS) * SEGMENT_USERS
    for start in range(int(edges[rank]), int(edges[rank + 1]), chunk):
        histories = reader.read(start, min(start + chunk, int(edges[rank + 1])))
        positions = targets_in(rule, subset, histories)
        rows = np.flatnonzero(positions >= 0)
        for first in range(0, len(rows), batch_size):
            some = rows[first : first + batch_size]
            yield _evaluation_batch(histories, some, positions, config.max_history, reader.feature_types)


def _train_batches(
    shares: list[Share], num_steps: int, feature_types: dict[str, FeatureDtype]
) -> list[SequenceBatch]:
    """A batch a step, of the sequences that have targets. The batches own their memory, together: a view would keep a
    whole window alive and let a consumer write into it."""
    rows, events = [share.rows for share in shares], [share.events for share in shares]
    lengths = _by_step([share.histories.lengths for share in shares], rows)
    user = _by_step([share.histories.user for share in shares], rows)
    item = _by_step([share.histories.item for share in shares], events)
    timestamp = _by_step([share.histories.timestamp for share in shares], events)
    has_targets = lengths > 0
    num_before = offsets_of(has_targets)
    num_users = np.diff(num_before[offsets_of(_num_by_step(rows, num_steps))]).tolist()
    num_tokens = _num_by_step(events, num_steps).tolist()
    columns = zip(
        torch.from_numpy(item).split(num_tokens),
        torch.from_numpy(lengths[has_targets]).split(num_users),
        torch.from_numpy(user[has_targets]).split(num_users),
        torch.from_numpy(timestamp).split(num_tokens),
        strict=True,
    )
    batches = [SequenceBatch(item, lengths, user, timestamp) for item, lengths, user, timestamp in columns]
    for name, dtype in feature_types.items():
        values = torch.from_numpy(_by_step([share.histories.features[name] for share in shares], events, dtype))
        for batch, own in zip(batches, values.split(num_tokens), strict=True):
            batch.features[name] = own
    return batches


def _by_step(columns: list[np.ndarray], ranges: list[Ranges], dtype: FeatureDtype = np.int64) -> np.ndarray:
    """What every step takes of each of ``columns``, in its range [S], step by step: a new array."""
    parts = [
        [column[low:high] for low, high in zip(taken.first.tolist(), taken.end.tolist(), strict=True)]
        for column, taken in zip(columns, ranges, strict=True)
    ]
    return np.concatenate([np.zeros(0, dtype), *itertools.chain(*zip(*parts, strict=True))], dtype=dtype)


def _num_by_step(ranges: list[Ranges], num_steps: int) -> np.ndarray:
    """How much lies in the ``ranges`` [S] of all shares, by step: int64 [S]."""
    return sum((taken.end - taken.first for taken in ranges), start=np.zeros(num_steps, np.int64))


def _evaluation_batch(
    histories: Histories,
    rows: np.ndarray,
    positions: np.ndarray,
    max_history: int,
    feature_types: dict[str, FeatureDtype],
) -> EvaluationBatch:
    starts, seen_lengths = histories.offsets[rows], positions[rows]
    lengths = np.minimum(seen_lengths, max_history)
    events = jagged_index(starts + seen_lengths - lengths, lengths)
    history = SequenceBatch(
        item=_int64(histories.item[events]),
        lengths=_int64(lengths),
        user=_int64(rows + histories.first_user),
        timestamp=_int64(histories.timestamp[events]),
        features={
            name: torch.from_numpy(histories.features[name][events].astype(dtype))
            for name, dtype in feature_types.items()
        },
        asked_at=_int64(histories.timestamp[starts + seen_lengths]),
    )
    return EvaluationBatch(
        history=history,
        target=_int64(histories.item[starts + seen_lengths]),
        seen=_int64(histories.item[jagged_index(starts, seen_lengths)]),
        seen_lengths=_int64(seen_lengths),
        target_features={
            name: torch.from_numpy(histories.features[name][starts + seen_lengths].astype(dtype))
            for name, dtype in feature_types.items()
        },
    )


def _int64(values: np.ndarray) -> torch.Tensor:
    """A tensor that owns its memory."""
    return torch.from_numpy(values.astype(np.int64))
