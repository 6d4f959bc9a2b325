"""Stage 1: the log's rows, typed, told from the broken ones and numbered by item, into ranges of users on disk."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from configs.errors import DataError
from configs.schema import DataConfig
from data_pipeline.prepare.partition.item_index import IdIndex
from data_pipeline.prepare.partition.spill_files import (
    Spill,
    blocks_of,
    cut_file,
    cut_to,
    cuts_of,
    events_of,
    replace_events,
    write_block,
)
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.read.id_values import kind_of
from data_pipeline.prepare.read.parquet import num_rows_in
from data_pipeline.prepare.read.quarantine import REASON, check_all_read, typed_rows, write_quarantine
from data_pipeline.prepare.read.sources import LogFile, reading
from data_pipeline.prepare.workspace import State, Workspace

BYTES_PER_EVENT = 256
"""Memory that an event takes where it is sorted, with its copies and a string id or two."""
BYTES_PER_FEATURE = 96
"""And more for each of its features: a string, its code, and copies."""
ROWS_PER_RANGE = 1_000_000
"""Small, so that sorting and writing overlap from early on, and a sort stays near the cache."""
ROWS_PER_BLOCK = 2_000_000
ROWS_PER_BATCH = 250_000
_BYTES_PER_TEXT_ROW = 24
_NUM_SAMPLES = 24
_ROWS_PER_SAMPLE = 8192
_MOST_KINDS, _MOST_KINDS_NAMED = 10_000, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Rows of one file of the log, or those of the store that is appended to: those first."""

    num_rows: int
    """Exact for a Parquet file, a guess for text."""
    batches: Callable[[int], Iterator[pl.DataFrame]]
    """Rows (user, item, timestamp, event_type or features if any, reason of a log) after so many rows."""
    sample: Callable[[int], pl.Series]
    """Some users from the given row on."""
    check_whole: Callable[[int], None] | None = None
    """Raises where the rows read are fewer than those that the file is known to have."""
    quarantine: Callable[[], None] | None = None
    """Writes the broken rows; None for a store, whose rows were judged before."""


def log_sources(
    files: list[LogFile], config: DataConfig, id_types: dict[str, pl.DataType], quarantine: Path, first_part: int
) -> list[Source]:
    """The files of the log; their broken rows go to ``quarantine/part-<first_part + k>.parquet``."""
    return [_log_source(file, config, id_types, quarantine, first_part + k) for k, file in enumerate(files)]


def max_rows_of(config: DataConfig) -> int:
    """Events that may be in memory at once; offsets of Arrow lists are int32."""
    num_bytes = BYTES_PER_EVENT + BYTES_PER_FEATURE * len(config.features)
    return min(max(1, int(config.memory_gib * 2**30 / num_bytes)), 2**30)


def rows_per_block(config: DataConfig) -> int:
    """Events that are written at once: one block grows while another is written."""
    return min(max(max_rows_of(config) // 2, 1), ROWS_PER_BLOCK)


def scan(
    sources: list[Source], known: pl.Series, config: DataConfig, work: Workspace, progress: ProgressReporter
) -> pl.Series:
    """Spill every sound row of ``sources`` of the wanted event types; returns the raw item of each code.

    ``known`` are the items that have codes 0, 1, ... already. Goes on where ``work.state`` stands.
    """
    scanner = _Scanner(sources, known, config, work)
    progress.begin("reading", sum(source.num_rows for source in sources), work.state.rows_spilled)
    try:
        scanner.run(sources, progress)
    finally:
        scanner.close()
    return scanner.index.ids


class _Scanner:
    """The open files of the stage, the rows that wait to be a block, and the thread that writes blocks."""

    def __init__(self, sources: list[Source], known: pl.Series, config: DataConfig, work: Workspace) -> None:
        self._config, self._work = config, work
        self._rows_per_block = rows_per_block(config)
        self._pending: list[pl.DataFrame] = []
        self._num_pending = 0
        ids, cuts, ranges = work.spill / "item_ids.block", work.spill / "cuts.block", work.spill / "ranges"
        if work.state.sizes:
            cut_to(ranges, work.state.sizes)
            cut_file(ids, work.state.sizes[ids.name])
            found = events_of(ids)
            known = found["id"] if found is not None else known
        else:
            replace_events(cuts, pl.DataFrame({"cut": _cuts(sources, config)}))
            replace_events(ids, pl.DataFrame({"id": known}))
        self.index = IdIndex(known, max(2**16, int(config.memory_gib * 2**30) // 64))
        self._spill = Spill(ranges, next(blocks_of(cuts))["cut"])
        self._ids = ids.open("ab", buffering=0)
        if not work.state.sizes:
            self._save(work.state)
        self._behind = ThreadPoolExecutor(1, thread_name_prefix="spill")
        self._written: Future[None] = self._behind.submit(lambda: None)

    def run(self, sources: list[Source], progress: ProgressReporter) -> None:
        """Read what is left of ``sources``."""
        state = self._work.state
        for source in sources[state.sources_done :]:
            for batch in source.batches(state.rows_of_source):
                self._take(batch, is_log=source.quarantine is not None)
                progress.advance(len(batch))
                if self._num_pending >= self._rows_per_block:
                    self._flush()
            if source.check_whole is not None:
                source.check_whole(state.rows_of_source)
            if source.quarantine is not None and state.bad_of_source:
                source.quarantine()
            state.sources_done, state.rows_of_source, state.bad_of_source = state.sources_done + 1, 0, 0
        self._flush()
        self._written.result()
        state.sizes = self._sizes()

    def close(self) -> None:
        """Close the spill's files, after what is being written to them."""
        self._behind.shutdown(wait=True)
        self._spill.close()
        self._ids.close()

    def _take(self, batch: pl.DataFrame, is_log: bool) -> None:
        """Count the rows of ``batch``, and keep the sound and wanted ones for the next block."""
        state, config = self._work.state, self._config
        state.rows_of_source += len(batch)
        wanted = batch
        if is_log:
            state.rows_read += len(batch)
            sound, broken = split_valid_rows(batch)
            wanted = filter_event_types(sound, config)
            state.bad_of_source += sum(broken.values())
            for reason, count in broken.items():
                _count(state.rows_quarantined, reason, count)
            if config.event_types:
                _count(state.rows_filtered, "event_type", len(sound) - len(wanted))
                count_kinds(state.kinds_seen, sound["event_type"])
        state.rows_spilled += len(wanted)
        self._num_pending += len(wanted)
        self._pending.append(wanted.select(columns_kept(config)))

    def _flush(self) -> None:
        """Write the waiting rows as one block a range, and then the state that has them, while further rows are read.

        A block's rows are numbered here while the one before it is written.
        """
        block = None
        if self._num_pending:
            rows = pl.concat(self._pending, rechunk=True)
            codes, new = self.index.codes_of(rows["item"])
            block = rows.with_columns(pl.Series("item", codes)), new
        self._pending, self._num_pending = [], 0
        self._written.result()
        self._written = self._behind.submit(self._write, block, deepcopy(self._work.state))

    def _write(self, block: tuple[pl.DataFrame, pl.Series] | None, state: State) -> None:
        """Write the rows of ``block`` and the ids that were new in it, then ``state``."""
        if block is not None:
            rows, new = block
            if len(new):
                write_block(self._ids, pl.DataFrame({"id": new}))
            self._spill.append(rows)
        self._save(state)

    def _save(self, state: State) -> None:
        """Save ``state`` with the files as they are; what the scan has read since then is not in them."""
        state.sizes = self._sizes()
        self._work.save(state)

    def _sizes(self) -> dict[str, int]:
        return {**self._spill.sizes(), Path(self._ids.name).name: self._ids.tell()}


def split_valid_rows(batch: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """The sound rows of ``batch`` in order, and how many are broken for each reason, by name."""
    if batch[REASON].null_count() == len(batch):
        return batch, {}
    broken = batch[REASON].drop_nulls().value_counts().sort(REASON)
    return batch.filter(pl.col(REASON).is_null()), dict(broken.iter_rows())


def filter_event_types(sound: pl.DataFrame, config: DataConfig) -> pl.DataFrame:
    """The rows of ``data.event_types``, or all of them where it is empty."""
    wanted = list(map(kind_of, config.event_types))
    return sound.filter(pl.col("event_type").is_in(wanted)) if wanted else sound


def count_kinds(counts: dict[str, int], kinds: pl.Series) -> None:
    """Add the events of each of ``kinds`` to ``counts``, which learns no more kinds than a message could name."""
    for kind, count in kinds.drop_nulls().value_counts().sort(kinds.name).iter_rows():
        if kind in counts or len(counts) < _MOST_KINDS:
            _count(counts, kind, count)


def check_kinds(counts: dict[str, int], config: DataConfig, progress: ProgressReporter) -> None:
    """Say which of ``data.event_types`` no event has, and which kinds there are; DataError if none has any."""
    absent = [kind for kind in config.event_types if kind_of(kind) not in counts]
    if not absent or len(counts) >= _MOST_KINDS:
        return
    there = sorted(counts, key=lambda kind: -counts[kind])
    shown = ", ".join(f"{kind} ({counts[kind]:,})" for kind in there[:_MOST_KINDS_NAMED])
    more = f" and {len(there) - _MOST_KINDS_NAMED} more" if len(there) > _MOST_KINDS_NAMED else ""
    message = (
        f"no event is of the kind {', '.join(absent)} (data.event_types); column {config.columns.event_type!r} of "
        f"data.log={config.log} holds {shown or 'no kind at all'}{more}"
    )
    if len(absent) == len(config.event_types):
        raise DataError(f"{message}; set data.event_types to some of them")
    progress.say(f"note: {message}")


def columns_kept(config: DataConfig) -> list[str]:
    """What is kept of a row that is sound and wanted."""
    return [*duplicate_key(config), *map(event_column, config.features)]


def duplicate_key(config: DataConfig) -> list[str]:
    """Two rows with all of these alike are duplicates, whatever their features."""
    return ["user", "item", "timestamp", *(["event_type"] if keeps_event_type(config) else [])]


def keeps_event_type(config: DataConfig) -> bool:
    """Whether events that differ in nothing but their type must be told apart until duplicates are gone."""
    return config.deduplicate and bool(config.columns.event_type) and len(config.event_types) != 1


def _count(counts: dict[str, int], key: str, number: int) -> None:
    counts[key] = counts.get(key, 0) + number


def _log_source(
    file: LogFile, config: DataConfig, id_types: dict[str, pl.DataType], quarantine: Path, part: int
) -> Source:
    rows = typed_rows(file, config.columns, id_types)
    if file.num_records:
        num_rows = file.num_records
    elif file.is_text:
        num_rows = file.path.stat().st_size // _BYTES_PER_TEXT_ROW + 1
    else:
        with reading(file.path):
            num_rows = num_rows_in(file.path) - file.view.num_deleted
    batch_rows = min(rows_per_block(config), ROWS_PER_BATCH)

    def batches(skip: int) -> Iterator[pl.DataFrame]:
        with reading(file.path):
            wanted = typed_rows(file, config.columns, id_types, skip) if skip else rows
            yield from wanted.collect_batches(chunk_size=batch_rows, maintain_order=True)

    def sample(row: int) -> pl.Series:
        with reading(file.path):
            some = rows if file.is_text else typed_rows(file, config.columns, id_types, row)
            return some.slice(0, _ROWS_PER_SAMPLE).select("user").collect()["user"]

    def write_broken() -> None:
        write_quarantine(file, config.columns, id_types, quarantine, part)

    check_whole = partial(check_all_read, file)
    return Source(num_rows=num_rows, batches=batches, sample=sample, check_whole=check_whole, quarantine=write_broken)


def _cuts(sources: list[Source], config: DataConfig) -> pl.Series:
    """Users between which the ranges lie, from rows taken evenly over all sources."""
    num_rows = sum(source.num_rows for source in sources)
    num_ranges = -(-num_rows // min(ROWS_PER_RANGE, max(1, max_rows_of(config) * 3 // 4)))
    if num_ranges <= 1:
        return sources[0].sample(0).clear()
    ends = np.cumsum([source.num_rows for source in sources])
    samples = []
    for place in sorted({num_rows * (2 * k + 1) // (2 * _NUM_SAMPLES) for k in range(_NUM_SAMPLES)}):
        index = int(np.searchsorted(ends, place, side="right"))
        samples.append(sources[index].sample(place - int(ends[index]) + sources[index].num_rows))
    users = pl.concat(samples).drop_nulls()
    return cuts_of(users, num_ranges) if len(users) else users


def check_some_rows(rows_read: int, config: DataConfig) -> None:
    """Raise :class:`DataError` for a log without a row."""
    if rows_read == 0:
        raise DataError(f"data.log={config.log} holds no rows; give a log with at least one event")
