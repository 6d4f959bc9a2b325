"""Small stores, written by hand as `data_pipeline.prepare` would write them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.schema import DataConfig, Split
from data_pipeline.cold_items import COLD_IN_TEST, COLD_IN_VALID, WARM
from data_pipeline.split import split_rule
from data_pipeline.store.manifest import load_manifest


def kinds_of_items(store: str) -> list[int]:
    """With ``data.split=cold_items``, what each item of ``store`` is."""
    kinds = split_rule(DataConfig(store=store, split=Split.COLD_ITEMS), load_manifest(store)).cold
    assert kinds is not None
    return kinds.tolist()


def places_of_a_cold_split(kinds: list[int], items: list[int]) -> tuple[list[int], dict[str, int]]:
    """Places of a history's training events, and of its targets by subset, 0 where there is none, by plain loops."""
    warm = [place for place, item in enumerate(items) if kinds[item] == WARM]
    targets = {"valid": warm[-2], "test": warm[-1]} if len(warm) >= 3 else {"valid": 0, "test": 0}
    for name, kind in (("valid", COLD_IN_VALID), ("test", COLD_IN_TEST)):
        held_out = [place for place, item in enumerate(items) if kinds[item] == kind]
        targets[name] = held_out[-1] if held_out and held_out[-1] > 0 else targets[name]
    return warm[:-2] if len(warm) >= 3 else warm, targets


def write_store(
    folder: Path,
    items: list[list[int]],
    timestamps: list[list[int]],
    *,
    num_items: int = 50,
    row_group_users: int = 1024,
    part_users: int = 10**9,
    fingerprint: str = "tiny",
) -> str:
    """A store of the given histories, user u being the u-th; returns its path."""
    (folder / "histories").mkdir(parents=True)
    table = pa.table(
        {
            "raw_user": [f"u{user}" for user in range(len(items))],
            "user": pa.array(range(len(items)), pa.int32()),
            "item": pa.array(items, pa.list_(pa.int32())),
            "timestamp": pa.array(timestamps, pa.list_(pa.int64())),
        }
    )
    for part, start in enumerate(range(0, len(items), part_users)):
        path = folder / "histories" / f"part-{part:05d}.parquet"
        pq.write_table(table.slice(start, part_users), path, row_group_size=row_group_users, compression="zstd")
    counts = np.bincount([item for history in items for item in history] or [0], minlength=num_items)[:num_items]
    pq.write_table(
        pa.table({"item": np.arange(num_items, dtype=np.int32), "raw_item": range(num_items), "count": counts}),
        folder / "items.parquet",
    )
    times = [time for history in timestamps for time in history] or [0]
    manifest = {
        "format_version": 1,
        "num_users": len(items),
        "num_items": num_items,
        "num_events": len(times),
        "first_time_ms": min(times),
        "last_time_ms": max(times),
        "columns": [],
        "engine": "test",
        "rows_read": len(times),
        "rows_used": len(times),
        "rows_filtered": {},
        "rows_quarantined": {},
        "num_time_ties": 0,
        "longest_history": max(map(len, items), default=0),
        "fingerprint": fingerprint,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return str(folder)


def random_histories(num_users: int, seed: int = 0, longest: int = 12) -> tuple[list[list[int]], list[list[int]]]:
    """Items below 50 and times of ``num_users`` histories of 1 to ``longest`` events; some times are equal."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, num_users)
    items = [random.integers(0, 50, length).tolist() for length in lengths]
    times = [np.sort(random.integers(0, 1000, length)).tolist() for length in lengths]
    return items, times


def time_of_quantile(times: list[int], fraction: float) -> int:
    """The first millisecond after ``fraction`` of ``times``, by sorting them; equal times stay together."""
    ordered, rank = sorted(times), round(len(times) * fraction)
    at = ordered[rank]
    before, through = ordered.index(at), len(ordered) - ordered[::-1].index(at)
    return at if (rank - before <= through - rank and before) or through == len(times) else at + 1
