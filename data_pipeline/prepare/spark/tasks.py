"""What runs on Spark's machines: the embedded engine's own functions, on a piece of the log or a part of the store.

Each maps an iterator of Arrow batches to another, as ``DataFrame.mapInArrow`` calls it. What a person can mend comes
back as a row with a ``failure``: raised, Spark would try it four times over and bury it in two stack traces.
"""

import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa

from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.features import FeatureType
from data_pipeline.prepare.partition.scan import (
    ROWS_PER_BATCH,
    columns_kept,
    count_kinds,
    filter_event_types,
    split_valid_rows,
)
from data_pipeline.prepare.partition.sorting import run_lengths, runs_of
from data_pipeline.prepare.partition.spill_files import ranges_of
from data_pipeline.prepare.provenance import digest_of
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.id_values import text_among_ids
from data_pipeline.prepare.read.quarantine import check_all_read, typed_rows, write_quarantine
from data_pipeline.prepare.read.sources import LogFile, column_names, open_log, reading
from data_pipeline.prepare.read.time_units import TimeCounts, count_times
from data_pipeline.prepare.write.feature_statistics import EventBlocks, Tally
from data_pipeline.prepare.write.histories import times_and_columns
from data_pipeline.prepare.write.history_writer import USERS_PER_PART, HistoryWriter
from data_pipeline.store.features import StoredFeature

Task = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
READ, OTHER_TYPE, BROKEN, KIND = "read", "event_type", "broken/", "kind/"
"""What a row of the scan that is no event counts: rows read, those of other types, broken ones by reason, sound ones
by kind."""
ATTEMPT = ".attempt-"
"""A task writes into a folder of its own: Spark may begin it again elsewhere before it has ended here."""
SURVEY = pa.schema(
    {
        "file": pa.int32(),
        "digest": pa.string(),
        "user": pa.string(),
        "item": pa.string(),
        "times": pa.string(),
        "failure": pa.string(),
    }
)
WRITTEN = pa.schema({"place": pa.int32(), "failure": pa.string()})
SQUARES = pa.schema({"name": pa.string(), "total": pa.string()})
"""An exact sum is a whole number beyond any column's: it travels as hexadecimal text."""
TALLIES = pa.schema(
    [
        *SQUARES,
        ("num_values", pa.int64()),
        ("num_missing", pa.int64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
    ]
)
_TYPES = {pl.Int64(): pa.int64(), pl.String(): pa.string()}


@dataclass(kw_only=True, slots=True)
class Piece:
    """Rows of one file that one task reads; ``file`` is its place in the order of arrival."""

    path: Path
    file: int
    first_number: int = 0
    first_row: int = 0
    num_rows: int | None = None
    """None: to the end."""
    view: FileView = field(default_factory=FileView)

    def opened(self, config: DataConfig, features: bool = True) -> LogFile:
        """The file, opened."""
        views = [self.view]
        return open_log([self.path], config.columns, config.source, config.features if features else None, views)[0]


def scan_schema(config: DataConfig, id_types: dict[str, pl.DataType]) -> pa.schema:
    """Columns of the scan: those of an event, its place of arrival, and a count where the row is no event."""
    types = {"user": _TYPES[id_types["user"]], "item": _TYPES[id_types["item"]], "timestamp": pa.int64()}
    numbers = [name for name, feature in config.features.items() if feature.type is FeatureType.NUMBER]
    types |= {event_column(name): pa.float64() for name in numbers}
    kept = [(name, types.get(name, pa.string())) for name in columns_kept(config)]
    arrival = [("file", pa.int32()), ("row", pa.int64())]
    return pa.schema([*kept, *arrival, ("count_of", pa.string()), ("count", pa.int64()), ("failure", pa.string())])


def survey(pieces: list[Piece], config: DataConfig) -> Task:
    """A task of ids (index into ``pieces``, whole files): a file's digest, an id that is no whole number, and its
    times by unit as JSON."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in _pieces_of(batches, pieces):
            row: dict[str, object] = {"file": piece.file}
            try:
                file = piece.opened(config, features=False)
                row["digest"] = digest_of(piece.path)
                names = column_names(config.columns)
                row |= {key: text_among_ids(file, names[key]) for key in ("user", "item")}
                time = names.get("timestamp")
                row["times"] = (count_times(file, time) if time else TimeCounts()).to_json()
            except DataError as error:
                row["failure"] = str(error)
            yield from _batches_of([row], SURVEY)

    return run


def scan(pieces: list[Piece], config: DataConfig, id_types: dict[str, pl.DataType]) -> Task:
    """A task of ids (index into ``pieces``): the piece's sound and wanted events, and counts of the others."""
    schema = scan_schema(config, id_types)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in _pieces_of(batches, pieces):
            counts, kinds = Counter[str](), dict[str, int]()
            try:
                for rows in _rows_of(piece, config, id_types):
                    sound, broken = split_valid_rows(rows)
                    wanted = filter_event_types(sound, config)
                    counts.update({READ: len(rows), OTHER_TYPE: len(sound) - len(wanted)})
                    counts.update({BROKEN + reason: count for reason, count in broken.items()})
                    if config.event_types:
                        count_kinds(kinds, sound["event_type"])
                    yield from _events_of(wanted, piece, schema)
                counts.update({KIND + kind: count for kind, count in kinds.items()})
            except DataError as error:
                counts.clear()
                yield from _batches_of([{"file": piece.file, "count_of": READ, "failure": str(error)}], schema)
            told = [{"file": piece.file, "count_of": name, "count": count} for name, count in counts.items()]
            yield from _batches_of(told, schema)

    return run


def quarantine(pieces: list[Piece], config: DataConfig, id_types: dict[str, pl.DataType], folder: Path) -> Task:
    """A task of ids (index into ``pieces``, whole files): write a file's broken rows into ``folder``."""

    def write(piece: Piece, attempt: Path) -> None:
        file = piece.opened(config)
        write_quarantine(file, config.columns, id_types, attempt, piece.file)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for piece in _pieces_of(batches, pieces):
            yield _written(piece.file, folder, partial(write, piece))

    return run


def placed(cuts: pl.Series, schema: pa.schema) -> Task:
    """A task of rows with a user: ``schema``, with ``place``, the range between ``cuts`` that the user falls into."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = _frame_of(batch)
            place = pl.Series("place", ranges_of(rows["user"], cuts), dtype=pl.Int32)
            yield from _as_arrow(rows.with_columns(place), schema)

    return run


def tallies(names: list[str]) -> Task:
    """A task of events: a row a feature with its tally over all of them."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = EventBlocks(lambda: map(_frame_of, batches)).tallies(names)
        rows = [{**asdict(tally), "name": name, "total": f"{tally.total:x}"} for name, tally in found.items()]
        return _batches_of(rows, TALLIES)

    return run


def squared_deviations(means: dict[str, float]) -> Task:
    """A task of events: a row a number feature of ``means`` with its squared deviations over all of them."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = EventBlocks(lambda: map(_frame_of, batches)).squared_deviations(means)
        return _batches_of([{"name": name, "total": f"{total:x}"} for name, total in found.items()], SQUARES)

    return run


def total_in(row: dict[str, Any]) -> int:
    """The exact sum in a row of ``SQUARES`` or ``TALLIES``."""
    return int(row["total"], 16)


def tally_in(row: dict[str, Any]) -> Tally:
    """The tally in a row of ``TALLIES``."""
    return Tally(
        num_values=row["num_values"],
        num_missing=row["num_missing"],
        total=total_in(row),
        min=row["min"],
        max=row["max"],
    )


def write_parts(folder: Path, features: dict[str, StoredFeature], has_finer_times: bool = False) -> Task:
    """A task of events (place, user, item, timestamp, ``features``) in order: write the part of each place as the
    writer does.

    Times are nanoseconds. The users of a place are those that belong into the part of that number, all of them.
    """

    def write(events: Iterable[tuple[int, pl.DataFrame]], place: int, attempt: Path) -> None:
        writer = HistoryWriter(attempt, place * USERS_PER_PART)
        for _, rows in events:
            raw = {name: rows[event_column(name)] for name in features}
            columns = times_and_columns(rows["timestamp"], features, raw, has_finer_times)
            writer.append(*runs_of(rows["user"]), rows["item"], *columns)
        writer.close()

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        whole = (
            (int(place), rows)
            for users in whole_users(map(_frame_of, batches), ROWS_PER_BATCH)
            for (place,), rows in users.group_by("place", maintain_order=True)
        )
        for place, events in groupby(whole, key=lambda pair: pair[0]):
            yield _written(place, folder, partial(write, events, place))

    return run


def whole_users(frames: Iterable[pl.DataFrame], num_rows: int) -> Iterator[pl.DataFrame]:
    """The rows of ``frames`` again, in frames of about ``num_rows`` or more that cut no user's run of rows in two."""
    held, num_held, wanted = list[pl.DataFrame](), 0, num_rows
    for frame in frames:
        held.append(frame)
        num_held += len(frame)
        if num_held < wanted:
            continue
        rows = pl.concat(held, rechunk=True)
        num_last = int(run_lengths(rows["user"])[-1])
        if num_last < len(rows):
            yield rows[:-num_last]
        held, num_held, wanted = [rows[-num_last:]], num_last, max(num_rows, 2 * num_last)
    if num_held:
        yield pl.concat(held, rechunk=True)


def _pieces_of(batches: Iterable[pa.RecordBatch], pieces: list[Piece]) -> Iterator[Piece]:
    return (pieces[index] for batch in batches for index in batch.column("id").to_pylist())


def _rows_of(piece: Piece, config: DataConfig, id_types: dict[str, pl.DataType]) -> Iterator[pl.DataFrame]:
    """Typed and judged rows; reading ends with the piece, not with the file."""
    left = piece.num_rows
    file = piece.opened(config)
    file.first_number = piece.first_number
    rows = typed_rows(file, config.columns, id_types, piece.first_row)
    num_read = 0
    with reading(piece.path):
        for batch in rows.collect_batches(chunk_size=ROWS_PER_BATCH, maintain_order=True):
            num_read += len(batch)
            yield batch if left is None else batch.head(left)
            left = None if left is None else left - len(batch)
            if left is not None and left <= 0:
                return
    check_all_read(file, num_read)


def _events_of(events: pl.DataFrame, piece: Piece, schema: pa.schema) -> Iterator[pa.RecordBatch]:
    columns = {"file": pl.lit(piece.file), "count_of": None, "count": None, "failure": None}
    yield from _as_arrow(events.with_columns(**columns), schema)


def _written(place: int, folder: Path, write: Callable[[Path], None]) -> pa.RecordBatch:
    """Let ``write`` fill a folder of its own, and move what it has made into ``folder``."""
    attempt, failure = folder / f"{ATTEMPT}{uuid4().hex}", None
    try:
        attempt.mkdir()
        write(attempt)
        for prepared in attempt.iterdir():
            prepared.replace(folder / prepared.name)
        attempt.rmdir()
    except DataError as error:
        failure = str(error)
    except OSError as error:
        failure = (
            f"{error.filename or folder} cannot be written on {socket.gethostname()}: {error.strerror}; every "
            f"machine of the cluster must see data.log, data.store and data.spill_dir under the same paths"
        )
    return next(_batches_of([{"place": place, "failure": failure}], WRITTEN))


def _frame_of(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame), "a batch is a frame"
    return frame


def _as_arrow(rows: pl.DataFrame, schema: pa.schema) -> Iterator[pa.RecordBatch]:
    return iter(rows.select(schema.names).to_arrow().cast(schema).to_batches())


def _batches_of(rows: list[dict[str, object]], schema: pa.schema) -> Iterator[pa.RecordBatch]:
    return iter(pa.Table.from_pylist(rows, schema).to_batches())
