"""One writer of a store at a time, wherever its spill lies: a prepare that makes a version, a prune."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import USAGE_EXIT_CODE, DataError
from data_pipeline.store.lease import Lease
from data_pipeline.store.lease_records import FOLDER
from data_pipeline.store.paths import AnyPath


@contextmanager
def writing_store(store: AnyPath, what: str) -> Iterator[Lease]:
    """Hold ``store`` against every other writer; nothing of that is left behind when the block ends.

    ``what`` names the store in messages. Raises ``LeaseError`` while another process writes there, and ``DataError``
    where its place cannot be written. A process that is found to have lost the store ends at once: its folders are
    the next writer's by then.
    """
    place = store
    if isinstance(store, Path):
        place = place_of_lease(store)
        is_somebodys = place.is_dir() and not (place / FOLDER).is_dir()
        _make(place, what)
    lease = _taken(place, what)
    try:
        yield lease
    finally:
        lease.withdraw()
        if isinstance(place, Path) and not is_somebodys:
            _remove_empty(place)


def place_of_lease(store: Path) -> Path:
    """Beside the store, whose folder appears when it is whole; inside of one that is a disk of its own."""
    return store / ".writing" if os.path.ismount(store) else store.with_name(f"{store.name}.writing")


def _make(place: Path, what: str) -> None:
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise DataError(f"{place} is in the way of {what}; move it elsewhere, or choose another")
    try:
        (place / FOLDER).mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        return  # the last writer has just removed it; the lease makes it again
    except OSError as error:
        raise DataError(f"{what} cannot be written: {error.strerror}: {error.filename}") from error


def _taken(place: AnyPath, what: str) -> Lease:
    while True:
        try:
            return Lease(place, what, on_loss=_end)
        except FileNotFoundError:  # the last writer has removed its folder just now
            continue


def _remove_empty(place: Path) -> None:
    try:
        place.rmdir()
    except OSError:
        return  # the next writer is there, or somebody's files are


def _end(words: str) -> None:
    print(f"ConfigError: {words}", file=sys.stderr, flush=True)
    os._exit(USAGE_EXIT_CODE)
