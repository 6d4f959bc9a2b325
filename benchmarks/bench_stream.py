"""How fast a store becomes batches, against a bare Arrow decode of the same files in the same run.

``python -m benchmarks stream data.store=STORE ...``. Page cache is warm: a round that is not counted comes first.
"""

import resource
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.harness import interleaved, paired_ratio, seconds_of, spread_of, write_result
from configs.load import load_config
from configs.schema import RunConfig
from data_pipeline.stream import SequenceStream

NUM_ROUNDS = 7
STEPS = (1, 1_000, 1_000_000)
"""Where the first batch after a resume is timed."""
NUM_EPOCHS = 10
"""Over which the memory of a reading process is watched."""


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
    first = interleaved({str(step): _first_batch(config, step) for step in STEPS}, NUM_ROUNDS)
    opened = [seconds_of(lambda: _stream(config)) for _ in range(NUM_ROUNDS)]
    resident = _resident_gib_by_epoch(stream)
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
        "open_s": spread_of(opened),
        **{f"first_batch_at_step_{step}_s": spread_of(seconds) for step, seconds in first.items()},
        "first_batch_largest_difference_s": spread_of(
            [max(seconds) - min(seconds) for seconds in zip(*first.values(), strict=True)]
        ),
        "resident_gib_over_epochs": spread_of(resident),
        "resident_last_against_first_epoch": spread_of([resident[-1] / resident[0]]),
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


def _decode(store: str) -> None:
    """The item and timestamp columns as Arrow arrays, a row group at a time."""
    for path in sorted(Path(store, "histories").glob("part-*.parquet")):
        file = pq.ParquetFile(path)
        for row_group in range(file.num_row_groups):
            file.read_row_group(row_group, columns=["item", "timestamp"])
