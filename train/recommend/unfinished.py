"""What is written so far: parts in a folder beside the output, one rename before there is a file; rank 0 alone."""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import polars as pl

from configs.atomic_files import read_json, write_json
from configs.errors import ConfigError, DataError
from data_pipeline.store.lease import Lease
from data_pipeline.store.paths import ObjectPath, path_of
from train.recommend.output_file import join_parts, write_rows

SUFFIX = ".unfinished"
PROGRESS = "progress.json"
_OURS = re.compile(r"(part-\d{6,}|whole)\.(parquet|csv|jsonl)|\.progress\.json\..*\.partial")


class Unfinished:
    """The one writer of an output; a context. What it finds of the same work, by ``job``, it goes on with."""

    def __init__(
        self, output: str, suffix: str, scratch: Path, job: dict[str, Any], heartbeat: Callable[[], None]
    ) -> None:
        """``scratch``: folder for the parts of an output behind a URL. Raises LeaseError for a second writer."""
        self.output = path_of(output)
        is_remote = isinstance(self.output, ObjectPath)
        self._folder = scratch if is_remote else Path(f"{self.output}{SUFFIX}")
        self._suffix, self._job = suffix, job
        shown = f"recommend.output={output}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{shown} cannot be written: {error.strerror}; name another") from error
        self._leases = list[Lease]()
        with ExitStack() as held:
            for place in [self._folder, *([path_of(f"{output}{SUFFIX}")] if is_remote else [])]:
                lease = Lease(place, shown, heartbeat)
                held.callback(lease.release)
                self._leases.append(lease)
            self.num_parts = self._parts_of_job()
            self._held = held.pop_all()

    def __enter__(self) -> "Unfinished":
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def write(self, rows: pl.DataFrame) -> None:
        """The next part. Raises :class:`OSError`."""
        whole = self._folder / f"whole{self._suffix}"
        write_rows(rows, whole)
        _synced(whole)
        whole.replace(self._part(self.num_parts))
        self.num_parts += 1

    def finish(self, names: Sequence[str]) -> None:
        """All parts as the output, in the place of one that is there. Raises :class:`OSError`."""
        whole = self._folder / f"whole{self._suffix}"
        join_parts([self._part(number) for number in range(self.num_parts)], names, whole)
        _synced(whole)
        for lease in self._leases:
            lease.check()
        if isinstance(self.output, ObjectPath):
            self.output.send(whole)
        else:
            whole.replace(self.output)
        self._remove_ours()
        for lease in self._leases:
            lease.withdraw()
        with suppress(OSError):  # what is left is not ours
            self._folder.rmdir()

    def _parts_of_job(self) -> int:
        """How many whole parts there are of this job; those of another go."""
        record = self._folder / PROGRESS
        try:
            is_same = record.is_file() and read_json(record) == self._job
        except DataError:
            is_same = False
        if not is_same:
            self._remove_ours()
            write_json(record, self._job)
        number = 0
        while self._part(number).is_file():
            number += 1
        return number

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}{self._suffix}"

    def _remove_ours(self) -> None:
        """What makes the parts a job's first."""
        (self._folder / PROGRESS).unlink(missing_ok=True)
        for path in sorted(self._folder.iterdir()):
            if _OURS.fullmatch(path.name) and path.is_file():
                path.unlink()


def _synced(path: Path) -> None:
    """On the disk: a name that is given after it is never that of half a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
