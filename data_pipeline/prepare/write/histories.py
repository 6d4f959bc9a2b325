"""Stage 3: ranges of events into histories and the fingerprint, going on after the parts that are whole."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.prepare.partition.sorting import in_order, runs_of
from data_pipeline.prepare.partition.spill_files import events_of
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.read.times import NS_PER_MS, split_nanoseconds
from data_pipeline.prepare.write.fingerprint import Fingerprint
from data_pipeline.prepare.write.history_writer import HistoryWriter
from data_pipeline.store.feature_encoding import encoded
from data_pipeline.store.features import StoredFeature, raw_column

BEYOND_MS = "timestamp_ns"
"""Nanoseconds beyond the millisecond: a column of stores whose log is finer, for the order of what is appended."""


@dataclass(kw_only=True, slots=True)
class HistoryCounts:
    """Counts over the histories that were written."""

    num_users: int = 0
    num_events: int = 0
    num_time_ties: int = 0
    longest_history: int = 0
    fingerprint: str = ""
    user_ids: str = ""
    """The digest of the raw users in the order of their dense ids."""


class UserEvents(NamedTuple):
    """Users [B] with their history lengths [B], and their events' dense items [T], times [T] in nanoseconds and
    raw features [T]."""

    users: pl.Series
    lengths: np.ndarray
    items: pl.Series
    times: pl.Series
    features: dict[str, pl.Series]


def write_histories(
    ranges: list[Path],
    dense: np.ndarray,
    raw_items: pl.Series,
    folder: Path,
    num_rows: int,
    progress: ProgressReporter,
    features: dict[str, StoredFeature],
    has_finer_times: bool = False,
) -> HistoryCounts:
    """Write the users of ``ranges`` in ascending order of raw id; ``dense`` is the dense item of each code.

    ``raw_items`` are the raw ids by dense id. Whole parts in ``folder`` are read for the fingerprint and kept. One
    range is written and the next one sorted, each on a thread of its own, while a third is counted here. ``features``
    are encoded, and written raw as well: for the fingerprint, and for a store that is made of this one. So is what
    ``has_finer_times`` says that times have beyond the millisecond.
    """
    total, fingerprint = HistoryCounts(), Fingerprint(features)
    writer = HistoryWriter(folder)
    last_user = None
    for events in _whole_parts(writer.whole_parts, list(features)):
        _count(total, fingerprint, events, raw_items)
        last_user = events.users[-1]
    progress.begin("writing", num_rows, total.num_events)
    with ThreadPoolExecutor(1) as behind:
        written = behind.submit(lambda: None)
        for rows in _sorted_ranges(ranges, last_user):
            users, lengths = runs_of(rows["user"])
            items = pl.Series(dense[rows["item"].to_numpy()])
            raw = {name: rows[event_column(name)] for name in features}
            written.result()
            written = behind.submit(
                writer.append,
                users,
                lengths,
                items,
                *times_and_columns(rows["timestamp"], features, raw, has_finer_times),
            )
            _count(total, fingerprint, UserEvents(users, lengths, items, rows["timestamp"], raw), raw_items)
            progress.advance(len(rows))
        written.result()
    writer.close()
    total.num_users, total.fingerprint = writer.num_users, fingerprint.hexdigest()
    total.user_ids = fingerprint.user_ids
    return total


def count_histories(
    folder: Path, raw_items: pl.Series, num_rows: int, progress: ProgressReporter, features: dict[str, StoredFeature]
) -> HistoryCounts:
    """Counts and fingerprint of the parts in ``folder``, all of them whole; ``raw_items`` by dense id."""
    total, fingerprint = HistoryCounts(), Fingerprint(features)
    progress.begin("counting", num_rows)
    for events in _whole_parts(sorted(folder.glob("part-*.parquet")), list(features)):
        _count(total, fingerprint, events, raw_items)
        total.num_users += len(events.users)
        progress.advance(len(events.items))
    total.fingerprint, total.user_ids = fingerprint.hexdigest(), fingerprint.user_ids
    return total


def times_and_columns(
    times: pl.Series, features: dict[str, StoredFeature], raw: dict[str, pl.Series], has_finer_times: bool
) -> tuple[pl.Series, dict[str, pl.Series]]:
    """The store's times in milliseconds, and its further columns: what training reads first and side by side."""
    milliseconds, beyond = split_nanoseconds(times)
    read = {name: encoded(feature, raw[name]) for name, feature in features.items()}
    kept = {raw_column(name): values for name, values in raw.items()}
    return milliseconds, read | kept | ({BEYOND_MS: beyond} if has_finer_times else {})


def _sorted_ranges(ranges: list[Path], last_user: object) -> Iterator[pl.DataFrame]:
    """Events of each range in order, those of users beyond ``last_user``, one range ahead of the reader."""
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        for path in [*ranges, None]:
            following = ahead.submit(_sorted_range, path, last_user) if path is not None else None
            if waiting is not None:
                events = waiting.result()
                waiting = None
                if events is not None and len(events):
                    yield events
                del events
            waiting = following


def _sorted_range(path: Path, last_user: object) -> pl.DataFrame | None:
    events = events_of(path)
    if events is None:
        return None
    if last_user is not None:
        events = events.filter(pl.col("user") > pl.lit(last_user))
    return in_order(events)


def _whole_parts(paths: list[Path], features: Sequence[str]) -> Iterator[UserEvents]:
    """Row groups of the parts that an ended prepare has left."""
    for path in paths:
        file = pq.ParquetFile(path)
        for row_group in range(file.num_row_groups):
            yield columns_of(file, row_group, features)


def write_items(path: Path, items: pl.DataFrame) -> None:
    """Write ``items.parquet``, its pages with checksums as those of the histories."""
    table = items.to_arrow()
    names = [name for name, dtype in items.schema.items() if dtype == pl.String]
    for name in names:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(name).cast(pa.string()))
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def columns_of(file: pq.ParquetFile, row_group: int, features: Sequence[str] = ()) -> UserEvents:
    """The users of a row group of a store."""
    names = ["raw_user", "item", "timestamp", *map(raw_column, features)]
    has_finer_times = BEYOND_MS in file.schema_arrow.names
    table = file.read_row_group(row_group, columns=[*names, *([BEYOND_MS] if has_finer_times else [])])
    users, item, time, *raw = (table.column(name).combine_chunks() for name in names)
    times = pl.Series(time.flatten()) * NS_PER_MS
    if has_finer_times:
        times += pl.Series(table.column(BEYOND_MS).combine_chunks().flatten())
    return UserEvents(
        pl.Series(users),
        np.diff(item.offsets.to_numpy()),
        pl.Series(item.flatten()),
        times,
        {name: pl.Series(column.flatten()) for name, column in zip(features, raw, strict=True)},
    )


def _count(total: HistoryCounts, fingerprint: Fingerprint, events: UserEvents, raw_items: pl.Series) -> None:
    lengths = events.lengths
    items = raw_items.gather(events.items)
    fingerprint.update(events.users, pl.Series(lengths), items, events.times // NS_PER_MS, events.features)
    time = events.times.to_numpy()
    is_tie = time[1:] == time[:-1]
    is_tie[np.cumsum(lengths)[:-1] - 1] = False
    total.num_time_ties += int(is_tie.sum())
    total.num_events += len(time)
    total.longest_history = max(total.longest_history, int(lengths.max()))
