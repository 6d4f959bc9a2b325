"""A log cut by time: its sound events in a folder of Parquet for each window, which a prepare then reads in turn.

Window 0 holds everything before the first scored window. Only this reads the log as it is written; what is scored and
trained on are stores of these folders, so that nothing of a later window can be in them.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import polars as pl

from configs.atomic_files import read_json, write_json
from configs.errors import DataError
from configs.schema import ColumnsConfig, DataConfig, FollowConfig
from configs.schema.source import Layout, SourceConfig, TimeUnit
from data_pipeline.prepare.partition.scan import (
    Source,
    check_kinds,
    check_some_rows,
    count_kinds,
    filter_event_types,
    log_sources,
    rows_per_block,
    split_valid_rows,
)
from data_pipeline.prepare.plan import log_files_outside
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.provenance import provenance_of
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.read.fetch import local_text
from data_pipeline.prepare.read.id_values import id_type
from data_pipeline.prepare.read.quarantine import check_fraction
from data_pipeline.prepare.read.sources import LogFile, column_names, open_log
from data_pipeline.prepare.read.time_units import settle_times
from data_pipeline.prepare.read.times import NS_PER_MS

CUT = "cut.json"
MAX_WINDOWS = 100_000
"""More are a wrong clock rather than a log: each is a folder, and a row of the table."""
_TYPES = {"Int64": pl.Int64(), "String": pl.String()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The content of ``cut.json``: what the windows of a log are, and what became of its rows."""

    first_start_ms: int
    """Where window 1, the first that is scored, begins."""
    window_ms: int
    num_events: list[int]
    """By window, 0 the events before the first that is scored; the last one has some."""
    id_types: dict[str, str]
    """How the ids of users and items are read, the same in every window."""
    rows_read: int
    rows_filtered: int
    rows_quarantined: dict[str, int] = field(default_factory=dict)
    files: list[list[object]] = field(default_factory=list)
    """[path, bytes, time of change in ns] of each file of the log."""

    @property
    def num_windows(self) -> int:
        """Those that can be scored."""
        return len(self.num_events) - 1

    def start_ms(self, window: int) -> int:
        """When ``window``, from 1 on, begins, in milliseconds since 1970; the one before it ends there."""
        return self.first_start_ms + (window - 1) * self.window_ms

    def types(self) -> dict[str, pl.DataType]:
        """Of the raw ids, by ``user`` and ``item``."""
        return {key: _TYPES[name] for key, name in self.id_types.items()}


def folder_of_window(folder: Path, window: int) -> Path:
    """Where the events of ``window`` lie in the ``folder`` of a cut."""
    return folder / f"{window:06d}"


def config_of_window(config: DataConfig, folder: Path, window: int, store: Path) -> DataConfig:
    """What prepares ``window`` into ``store``: window 0 makes it, later ones are added to it."""
    source = SourceConfig(
        layout=Layout.PARQUET,
        time_unit=TimeUnit.NS,
        earliest_time=config.source.earliest_time,
        latest_time=config.source.latest_time,
        missing=config.source.missing,
    )
    return replace(
        config,
        log=str(folder_of_window(folder, window)),
        store=str(store),
        columns=ColumnsConfig(user="user", item="item", timestamp="timestamp"),
        event_types=[],  # others are left out by the cut
        source=source,
        features={name: replace(each, column=event_column(name)) for name, each in config.features.items()},
        append=window > 0,
    )


def cut_log(config: DataConfig, follow: FollowConfig, folder: Path, progress: ProgressReporter) -> Cut:
    """Cut ``config.log`` into ``folder``, or take the cut that is there. A killed one begins anew.

    Holds ``data.memory_gib`` of events at most. Raises :class:`DataError` for a log that cannot be used, and where
    no event lies before or after the first scored window.
    """
    if (folder / CUT).is_file():
        return Cut(**read_json(folder / CUT))
    partial = folder.with_name(f"{folder.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    store = replace(config, store=str(folder.with_name("store")))
    with _opened(store, progress) as (files, written, config):
        names = column_names(config.columns)
        types = {key: id_type(files, names[key]) for key in ("user", "item")}
        cutter = _Cutter(config, follow, partial)
        for source in log_sources(files, config, types, partial / "quarantine", 0):
            cutter.read(source, progress)
        cutter.flush()
        cutter.check(progress)
    num_events, first = _put_in_order(cutter.num_events, config, follow, partial)
    cut = Cut(
        first_start_ms=first,
        window_ms=follow.window.ms,
        num_events=num_events,
        id_types={key: str(each) for key, each in types.items()},
        rows_read=cutter.rows_read,
        rows_filtered=cutter.rows_filtered,
        rows_quarantined=dict(cutter.rows_quarantined),
        files=written,
    )
    write_json(partial / CUT, asdict(cut))
    partial.rename(folder)
    return cut


@contextmanager
def _opened(
    config: DataConfig, progress: ProgressReporter
) -> Iterator[tuple[list[LogFile], list[list[object]], DataConfig]]:
    """The files of the log, how each was before it was read, and ``config`` with the unit of their times."""
    log = log_files_outside(config, progress)
    views, before = [log.view(path) for path in log.paths], provenance_of(config, log.paths).files
    with local_text(log.paths, config, progress, views) as readable:
        files = open_log(readable, config.columns, config.source, config.features, views)
        for file, path in zip(files, log.paths, strict=True):
            file.name = str(path)
        files, config = settle_times(files, config, TimeUnit.MS, progress)
        yield files, before, config


class _Cutter:
    """Sound events, held until they are a block, and then written to the folder of their window."""

    def __init__(self, config: DataConfig, follow: FollowConfig, folder: Path) -> None:
        self._config, self._folder, self._ms, self._origin = config, folder, follow.window.ms, follow.origin_ms
        self._pending: list[pl.DataFrame] = []
        self._num_pending = self._num_blocks = 0
        self.rows_read = self.rows_filtered = 0
        self.rows_quarantined, self.num_events = Counter[str](), Counter[int]()
        self._kinds: dict[str, int] = {}

    def read(self, source: Source, progress: ProgressReporter) -> None:
        """Take every row of one file."""
        config, num_bad, num_rows = self._config, 0, 0
        progress.begin("cutting by time", source.num_rows)
        for batch in source.batches(0):
            sound, broken = split_valid_rows(batch)
            wanted = filter_event_types(sound, config)
            if config.event_types:
                count_kinds(self._kinds, sound["event_type"])
            num_bad, num_rows = num_bad + sum(broken.values()), num_rows + len(batch)
            self.rows_quarantined.update(broken)
            self.rows_filtered += len(sound) - len(wanted)
            columns = ["user", "item", "timestamp", *map(event_column, config.features)]
            self._pending.append(wanted.select(columns))
            self._num_pending += len(wanted)
            if self._num_pending >= rows_per_block(config):
                self.flush()
            progress.advance(len(batch))
        self.rows_read += num_rows
        if source.check_whole is not None:
            source.check_whole(num_rows)
        if source.quarantine is not None and num_bad:
            source.quarantine()

    def flush(self) -> None:
        """Write what is held, one file a window; files of a window sort as they came."""
        if self._num_pending:
            ms = pl.col("timestamp").floordiv(NS_PER_MS)
            window = (ms - self._origin).floordiv(self._ms)
            rows = pl.concat(self._pending).with_columns(window=window)
            for (index,), events in rows.partition_by("window", as_dict=True, maintain_order=True).items():
                self.num_events[int(index)] += len(events)
                self._refuse_too_many()
                path = self._folder / "unordered" / str(index) / f"part-{self._num_blocks:06d}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                # An append takes a file whose bytes it knows for one that it has: equal events of two blocks differ.
                events.drop("window").write_parquet(path, metadata={"block": str(self._num_blocks)})
        self._pending, self._num_pending, self._num_blocks = [], 0, self._num_blocks + 1

    def check(self, progress: ProgressReporter) -> None:
        """Raise :class:`DataError` where too little of the log could be used."""
        config = self._config
        check_some_rows(self.rows_read, config)
        check_fraction(dict(self.rows_quarantined), self.rows_read, config.max_bad_fraction)
        if config.event_types:
            check_kinds(self._kinds, config, progress)
        if not self.num_events:
            raise DataError(f"data.log={config.log} holds no event that can be used; look at data.event_types")

    def _refuse_too_many(self) -> None:
        number = max(self.num_events) - min(self.num_events) + 1
        if number > MAX_WINDOWS:
            raise DataError(
                f"data.log={self._config.log} spans {number:,} windows of follow.window, more than {MAX_WINDOWS:,}: "
                f"choose a longer follow.window, or leave out wrong clocks by data.source.earliest_time and "
                f"data.source.latest_time"
            )


def _put_in_order(
    counts: Counter[int], config: DataConfig, follow: FollowConfig, folder: Path
) -> tuple[list[int], int]:
    """Move every window to its number; the events of each number, and when window 1 begins in ms."""
    oldest, newest = min(counts), max(counts)
    first = 0 if follow.start else oldest + follow.first_windows
    if oldest >= first:
        raise DataError(
            f"follow.start={follow.start}: data.log={config.log} holds no event before it for the first model to "
            f"learn from; name a later date"
        )
    if newest < first:
        key = f"follow.start={follow.start}" if follow.start else f"follow.first_windows={follow.first_windows}"
        raise DataError(
            f"{key}: data.log={config.log} spans {newest - oldest + 1:,} windows by the {follow.window.value} and "
            f"has no event after those of the first model; begin earlier, or choose a shorter follow.window"
        )
    for ordinal, index in enumerate(sorted(counts)):
        window = max(index - first + 1, 0)
        place = folder_of_window(folder, window)
        # The first model's events keep the order of their windows.
        place = place if window else place / f"{ordinal:06d}"
        place.parent.mkdir(exist_ok=True)
        (folder / "unordered" / str(index)).rename(place)
    (folder / "unordered").rmdir()
    num_first = sum(number for index, number in counts.items() if index < first)
    later = [counts[index] for index in range(first, newest + 1)]
    return [num_first, *later], follow.origin_ms + first * follow.window.ms
