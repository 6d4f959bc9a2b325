"""How fast a store becomes batches, against a bare Arrow decode of the same files in the same run.

``python -m benchmarks stream data.store=STORE ...``. Page cache is warm: a round that is not counted comes first.
"""

import time
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.harness import interleaved, paired_ratio, seconds_of, spread_of, write_result
from configs.load import load_config
from configs.schema import RunConfig
from data_pipeline.stream import SequenceStream

NUM_ROUNDS = 7
LATE_STEP = 10_000


def main(overrides: list[str]) -> None:
    """Time one epoch, an epoch from the cache, a bare decode and the first batch; write ``results/stream.json``."""
    config = load_config(overrides)
    stream = _stream(config)
    manifest = stream.manifest
    decoded = interleaved(
        {
            "arrow": lambda: manifest.num_events / seconds_of(lambda: _decode(config.data.store)),
            "stream": lambda: manifest.num_events / seconds_of(lambda: _epoch(_stream(config), 0)),
            "cached": lambda: manifest.num_events / seconds_of(lambda: _epoch(stream, 1)),
        },
        NUM_ROUNDS,
    )
    first = interleaved(
        {"step_0": lambda: _first_batch_s(config, 0), "late": lambda: _first_batch_s(config, LATE_STEP)}, NUM_ROUNDS
    )
    tokens_per_epoch = _epoch(stream, 1)
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
        "first_batch_at_step_0_s": spread_of(first["step_0"]),
        f"first_batch_at_step_{LATE_STEP}_s": spread_of(first["late"]),
        "first_batch_late_against_step_0": paired_ratio(first["late"], first["step_0"]),
    }
    notes = {
        "num_users": manifest.num_users,
        "num_events": manifest.num_events,
        "fingerprint": manifest.fingerprint,
        "steps_per_epoch": stream.steps_per_epoch,
        "tokens_per_epoch": tokens_per_epoch,
        "max_history": config.data.max_history,
        "global_batch_size": config.data.global_batch_size,
        "events": "events of the store; those outside training or beyond max_history are decoded, then dropped",
        "later_epoch": "a stream that has already read one; it decodes again what exceeds the cache",
    }
    write_result("stream", overrides, figures, notes)


def _stream(config: RunConfig) -> SequenceStream:
    return SequenceStream(config.data, seed=config.seed, rank=0, world_size=1)


def _epoch(stream: SequenceStream, epoch: int) -> int:
    """Tokens of one epoch, after reading all of it."""
    batches = stream.batches(start=epoch * stream.steps_per_epoch)
    return sum(batch.num_tokens for batch in islice(batches, stream.steps_per_epoch))


def _first_batch_s(config: RunConfig, step: int) -> float:
    """Seconds from nothing to the batch of ``step``, opening the store included; stopping the thread is not."""
    start = time.perf_counter()
    batches = _stream(config).batches(start=step)
    next(batches)
    return time.perf_counter() - start


def _decode(store: str) -> None:
    """The item and timestamp columns as Arrow arrays, a row group at a time."""
    for path in sorted(Path(store, "histories").glob("part-*.parquet")):
        file = pq.ParquetFile(path)
        for row_group in range(file.num_row_groups):
            file.read_row_group(row_group, columns=["item", "timestamp"])
