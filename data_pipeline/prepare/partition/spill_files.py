"""Events on disk by ranges of raw user id: files that only grow, of blocks in order of arrival.

A block is one whole Arrow stream, so that a file cut after any block is a spill file again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa

from configs.errors import DataError

MAX_RANGES = 256
"""Files that are open at once; ranges that come out too large are cut again."""
_SAMPLE = 65_536


class Spill:
    """Appends events to the files of ``folder``, one a range between ``cuts``, ascending in user."""

    def __init__(self, folder: Path, cuts: pl.Series, prefix: str = "") -> None:
        self._cuts = cuts
        folder.mkdir(exist_ok=True)
        self.paths = [folder / f"{prefix}{k:04d}.arrow" for k in range(len(cuts) + 1)]
        self._files: list[BinaryIO] = [path.open("ab", buffering=0) for path in self.paths]

    def append(self, events: pl.DataFrame) -> None:
        """Add ``events`` to the files of their users, in the order in which they stand."""
        ranges = ranges_of(events["user"], self._cuts)
        ends = np.cumsum(np.bincount(ranges, minlength=len(self._files)))
        ordered = events[np.argsort(ranges, kind="stable")]
        start = 0
        for file, end in zip(self._files, ends, strict=True):
            if end > start:
                write_block(file, ordered[start:end])
            start = int(end)

    def sizes(self) -> dict[str, int]:
        """Bytes written to each file so far."""
        return {path.name: file.tell() for path, file in zip(self.paths, self._files, strict=True)}

    def close(self) -> None:
        """Close all files."""
        for file in self._files:
            file.close()


def cuts_of(sample: pl.Series, num_ranges: int) -> pl.Series:
    """Users, ascending, that cut ``sample`` into at most ``num_ranges`` ranges of about as many rows each."""
    num_ranges = min(num_ranges, MAX_RANGES, len(sample))
    ordered = sample.sort()
    return ordered.gather([len(ordered) * k // num_ranges for k in range(1, num_ranges)]).unique().sort()


def ranges_in(folder: Path) -> list[Path]:
    """The spill files of ``folder``, ascending in user."""
    return sorted(folder.glob("*.arrow"))


def blocks_of(path: Path) -> Iterator[pl.DataFrame]:
    """The blocks of a spill file in order, mapped rather than read; DataError where a crash has damaged one."""
    if path.stat().st_size == 0:
        return
    with pa.memory_map(str(path)) as file:
        while file.tell() < file.size():
            try:
                block = pl.from_arrow(pa.ipc.open_stream(file).read_all())
            except pa.ArrowException as error:
                raise _damaged(path) from error
            assert isinstance(block, pl.DataFrame), "a block is a table"
            yield block


def events_of(path: Path) -> pl.DataFrame | None:
    """All events of a spill file in order of arrival; None where there is none."""
    blocks = list(blocks_of(path))
    return pl.concat(blocks, rechunk=True) if blocks else None


def num_rows_of(path: Path) -> int:
    """Events in a spill file."""
    return sum(len(block) for block in blocks_of(path))


def write_block(file: BinaryIO, rows: pl.DataFrame) -> None:
    """Append ``rows`` to ``file`` as one block."""
    table = rows.to_arrow()
    with pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def replace_events(path: Path, events: pl.DataFrame) -> None:
    """Let ``path`` hold ``events`` and nothing else, in one step."""
    partial = path.with_suffix(".new")
    with partial.open("wb", buffering=0) as file:
        write_block(file, events)
    partial.replace(path)


def cut_to(folder: Path, sizes: dict[str, int]) -> None:
    """Take off the files of ``folder`` what lies beyond ``sizes``; DataError where a crash has lost some of it."""
    for path in ranges_in(folder):
        cut_file(path, sizes[path.name])


def cut_file(path: Path, size: int) -> None:
    """Take off a file what lies beyond ``size``; DataError where it is shorter."""
    if path.stat().st_size < size:
        raise _damaged(path)
    with path.open("r+b") as file:
        file.truncate(size)


def split_large(folder: Path, max_rows: int) -> None:
    """Cut every range of more than ``max_rows`` again, until it fits or one user's events fill it.

    A kill leaves the range whole, with pieces of it beside: they are removed and made again.
    """
    for path in ranges_in(folder):
        _split(path, max_rows)


def _damaged(path: Path) -> DataError:
    return DataError(f"{path}, left of a prepare that was ended, is damaged; it is removed: prepare again")


def _split(path: Path, max_rows: int) -> None:
    if not path.exists():
        return
    prefix = f"{path.stem}-"
    for piece in path.parent.glob(f"{prefix}*"):
        piece.unlink()
    num_rows = num_rows_of(path)
    if num_rows <= max_rows:
        return
    step = -(-num_rows // _SAMPLE)
    sample = pl.concat([block["user"].gather_every(step) for block in blocks_of(path)])
    cuts = cuts_of(sample, -(-2 * num_rows // max_rows))
    if len(cuts) == 0 or ranges_of(sample, cuts).min() == ranges_of(sample, cuts).max():
        return
    spill = Spill(path.parent, cuts, prefix)
    for block in blocks_of(path):
        spill.append(block)
    spill.close()
    path.unlink()
    for piece in spill.paths:
        _split(piece, max_rows)


def ranges_of(users: pl.Series, cuts: pl.Series) -> np.ndarray:
    """Index of the range that each user falls into, uint16: a cut belongs to the range above it."""
    if len(cuts) == 0:
        return np.zeros(len(users), dtype=np.uint16)
    if users.dtype == pl.String:
        return cuts.search_sorted(users, side="right").to_numpy().astype(np.uint16)
    return np.searchsorted(cuts.to_numpy(), users.to_numpy(), side="right").astype(np.uint16)
