"""How fast a store becomes batches, against a bare Arrow decode of the same files in the same run.

``shardrec bench stream data.store=STORE ...``. Page cache is warm: a round that is not counted comes first. A store
of ``LARGE_EVENTS`` or more has a record of its own, ``results/stream_large.json``: an epoch of it is seconds.
"""

import resource
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness import Spread, interleaved, paired_ratio, record_name, seconds_of, spread_of, write_result
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import RunConfig
from configs.url import is_url
from data_pipeline.stream.balance import shard_imbalance
from data_pipeline.stream.sequence_stream import SequenceStream
from models.keyed_jagged import to_kjt

NUM_ROUNDS = 7
NUM_SHORT_ROUNDS = 31
"""Of a store that is not large, whose epoch takes less than a second: a machine's other work weighs more in it."""
LARGE_EVENTS = 10_000_000
STEPS = (1, 1_000, 1_000_000)
"""Where the first batch after a resume is timed."""
NUM_EPOCHS = 10
"""Over which the memory of a reading process is watched."""
WORLD_SIZES = (2, 4, 8)
"""For which the bytes read and the tokens of the ranks are counted; at most ``data.num_data_shards``."""


def main(overrides: list[str]) -> None:
    """Time one epoch, an epoch from the cache, a bare decode and the first batch; write the record."""
    config = load_config(overrides)
    if is_url(config.data.store):
        raise ConfigError(f"data.store={config.data.store} is a URL; the bare decode reads local files: copy it here")
    stream = _stream(config)
    manifest = stream.manifest
    is_large = manifest.num_events >= LARGE_EVENTS
    decoded = interleaved(
        {
            "arrow": lambda: manifest.num_events / seconds_of(lambda: _decode(config.data.store)),
            "stream": lambda: manifest.num_events / _epoch_s(lambda: _stream(config), 0),
            "cached": lambda: manifest.num_events / _epoch_s(lambda: stream, 1),
        },
        NUM_ROUNDS if is_large else NUM_SHORT_ROUNDS,
    )
    first = interleaved({str(step): _first_batch(config, step) for step in STEPS}, NUM_ROUNDS)
    opened = [seconds_of(lambda: _stream(config)) for _ in range(NUM_ROUNDS)]
    resident = _resident_gib_by_epoch(stream)
    tokens_per_epoch = sum(batch.num_tokens for batch in islice(stream.batches(), stream.steps_per_epoch))
    tokens_per_event = tokens_per_epoch / manifest.num_events
    figures = {
        "stream_tokens_per_s": spread_of([rate * tokens_per_event for rate in decoded["stream"]]),
        "arrow_decode_events_per_s": spread_of(decoded["arrow"]),
        "stream_events_per_s": spread_of(decoded["stream"]),
        "stream_later_epoch_events_per_s": spread_of(decoded["cached"]),
        "stream_against_arrow_decode": paired_ratio(decoded["stream"], decoded["arrow"]),
        "stream_tokens_against_arrow_decode": paired_ratio(
            [rate * tokens_per_event for rate in decoded["stream"]], decoded["arrow"]
        ),
        "open_s": spread_of(opened),
        **{f"first_batch_at_step_{step}_s": spread_of(seconds) for step, seconds in first.items()},
        "first_batch_largest_difference_s": spread_of(
            [max(seconds) - min(seconds) for seconds in zip(*first.values(), strict=True)]
        ),
        "resident_gib_over_epochs": spread_of(resident),
        "resident_last_against_first_epoch": spread_of([resident[-1] / resident[0]]),
        **_counted(config),
    }
    notes = {
        "num_users": manifest.num_users,
        "num_events": manifest.num_events,
        "fingerprint": manifest.fingerprint,
        "steps_per_epoch": stream.steps_per_epoch,
        "tokens_per_epoch": tokens_per_epoch,
        "max_history": config.data.max_history,
        "long_histories": config.data.long_histories.value,
        "global_batch_size": config.data.global_batch_size,
        "global_batch_tokens": config.data.global_batch_tokens,
        "prefetch_mib": config.data.prefetch_mib,
        "read_amplification": "bytes a rank read in an epoch over bytes of its users; of the rank with the most",
        "token_imbalance": "tokens of the fullest rank over the mean, by step; mean and worst of an epoch",
        "events": "events of the store; those outside training or beyond max_history are decoded, then dropped",
        "later_epoch": "a stream that has already read one; it decodes again what exceeds the cache",
    }
    name = record_name("stream_large" if is_large else "stream", config.hardware)
    write_result(name, overrides, figures, notes)


def _stream(config: RunConfig) -> SequenceStream:
    return SequenceStream(config.data, seed=config.seed, rank=0, world_size=1)


def _epoch_s(opened: Callable[[], SequenceStream], epoch: int) -> float:
    """Seconds from opening to the last batch of ``epoch`` as TorchRec reads it; what was made ahead is dropped."""
    start = time.perf_counter()
    stream = opened()
    with closing(stream.batches(start=epoch * stream.steps_per_epoch)) as batches:
        deque((to_kjt(batch) for batch in islice(batches, stream.steps_per_epoch)), maxlen=0)
        return time.perf_counter() - start


def _first_batch(config: RunConfig, step: int) -> Callable[[], float]:
    """Times from nothing to the batch of ``step``, in seconds, opening the store included; stopping is not."""

    def first_batch_s() -> float:
        start = time.perf_counter()
        batches = _stream(config).batches(start=step)
        next(batches)
        return time.perf_counter() - start

    return first_batch_s


def _resident_gib_by_epoch(stream: SequenceStream) -> list[float]:
    """Resident memory of this process after each of ``NUM_EPOCHS`` epochs, read one after another."""
    resident = []
    batches = stream.batches(start=0)
    for _ in range(NUM_EPOCHS):
        for _ in islice(batches, stream.steps_per_epoch):
            pass
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        resident.append(pages * resource.getpagesize() / 2**30)
    return resident


def _counted(config: RunConfig) -> dict[str, Spread]:
    """Read amplification and token imbalance by number of ranks: counts, not times."""
    stream = _stream(config)
    epoch = islice(stream.batches(), stream.steps_per_epoch)
    tokens = np.stack([stream.tokens_by_shard(batch) for batch in epoch])
    figures = {}
    for world_size in (size for size in WORLD_SIZES if size <= config.data.num_data_shards):
        imbalance = shard_imbalance(tokens, world_size)
        amplification = [read_amplification(config, rank, world_size) for rank in range(world_size)]
        figures[f"read_amplification_of_{world_size}_ranks"] = spread_of([max(amplification)])
        figures[f"token_imbalance_mean_of_{world_size}_ranks"] = spread_of([imbalance.mean])
        figures[f"token_imbalance_worst_of_{world_size}_ranks"] = spread_of([imbalance.worst])
    return figures


def read_amplification(config: RunConfig, rank: int, world_size: int) -> float:
    """Bytes that a rank reads in its first epoch over those that its users take up; nothing of the second is read."""
    data = replace(config.data, prefetch_batches=0, prefetch_mib=0)
    stream = SequenceStream(data, seed=config.seed, rank=rank, world_size=world_size)
    for _ in islice(stream.batches(), stream.steps_per_epoch):
        pass
    return stream.num_bytes_read / stream.num_bytes_needed()


def _decode(store: str) -> None:
    """The item and timestamp columns as Arrow arrays, a row group at a time."""
    for path in sorted(Path(store, "histories").glob("part-*.parquet")):
        file = pq.ParquetFile(path)
        for row_group in range(file.num_row_groups):
            file.read_row_group(row_group, columns=["item", "timestamp"])
