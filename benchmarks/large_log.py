"""A large log, made fast: events in order of time, users interleaved, Zipf items, a few rows that arrive late.

It carries no pattern to learn (``data_pipeline.synthetic`` does); it has the size and the disorder of a real log.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_FILE = 10_000_000
ROWS_PER_ROW_GROUP = 500_000
LATE_FRACTION = 0.01
START_MS = 1_700_000_000_000
SPAN_MS = 30 * 86_400_000
LATEST_MS = 3_600_000
SCHEMA = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("timestamp", pa.int64())])


def write_large_log(folder: Path, num_events: int, num_users: int, num_items: int, seed: int = 0) -> None:
    """Write ``num_events`` rows of user_id, item_id, timestamp (int64, ms) into ``folder/part-*.parquet`` (zstd).

    Users are drawn with density ~ x^(-1/3), items by Zipf's law (exponent 1); raw ids are spread over wide ranges and
    carry nothing. Times grow with the row, but for ``LATE_FRACTION`` of them that lie up to an hour back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    raw_user = 10**9 + 97 * random.permutation(num_users)
    raw_item = 10**6 + 13 * random.permutation(num_items)
    for part, start in enumerate(range(0, num_events, ROWS_PER_FILE)):
        end = min(start + ROWS_PER_FILE, num_events)
        with pq.ParquetWriter(folder / f"part-{part:04d}.parquet", SCHEMA, compression="zstd") as writer:
            for low in range(start, end, ROWS_PER_ROW_GROUP):
                high = min(low + ROWS_PER_ROW_GROUP, end)
                writer.write_table(_rows(random, low, high, num_events, raw_user, raw_item))


def _rows(
    random: np.random.Generator, low: int, high: int, num_events: int, raw_user: np.ndarray, raw_item: np.ndarray
) -> pa.Table:
    num = high - low
    user = raw_user[(len(raw_user) * random.random(num) ** 1.5).astype(np.int64)]
    rank = np.exp(random.random(num) * np.log(len(raw_item) + 1)).astype(np.int64) - 1
    item = raw_item[np.minimum(rank, len(raw_item) - 1)]
    due = (START_MS + np.linspace(low, high, num, endpoint=False) / num_events * SPAN_MS).astype(np.int64)
    is_late = random.random(num) < LATE_FRACTION
    time = due - np.where(is_late, random.integers(0, LATEST_MS, num), 0)
    return pa.table([user, item, time], schema=SCHEMA)
