"""The two folders of a prepare at work, the store that it fills and the spill beside it: both outlive a kill."""

import ctypes
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

from configs.errors import DataError

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


@dataclass(kw_only=True, slots=True)
class State:
    """How far a prepare has come: what a continued one starts from. Row counts are of the log alone."""

    stage: str = "scan"
    """scan, then spilled, distinct, core: the last of them that is done."""
    sources_done: int = 0
    rows_of_source: int = 0
    bad_of_source: int = 0
    rows_read: int = 0
    rows_spilled: int = 0
    """Of the log and of the store that is appended to."""
    rows_filtered: dict[str, int] = field(default_factory=dict)
    rows_quarantined: dict[str, int] = field(default_factory=dict)
    kinds_seen: dict[str, int] = field(default_factory=dict)
    """Sound rows of each kind of event, where ``data.event_types`` chooses some."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each spill file that are whole; what lies beyond was written after this state."""


@dataclass(kw_only=True, slots=True)
class Workspace:
    """``store`` becomes the store when all is well; ``spill`` vanishes then, with ``state`` in it."""

    store: Path
    spill: Path
    state: State
    provenance: object

    def save(self, state: State | None = None) -> None:
        """Write ``state``, or an earlier copy, in one step: a continued prepare finds this one or the one before."""
        partial = self.spill / "state.json.new"
        saved = {"provenance": self.provenance, "state": asdict(state or self.state)}
        partial.write_text(json.dumps(saved), encoding="utf-8")
        partial.replace(self.spill / "state.json")


@contextmanager
def workspace_of(store: Path, spill_dir: str, provenance: object) -> Iterator[Workspace]:
    """The folders to work in, as a killed prepare of the same ``provenance`` left them, else empty.

    When the block ends well the filled folder takes the place of ``store`` in one step; an error removes both folders
    and leaves ``store`` as it was; a kill leaves all three. Raises ``DataError`` for a folder that cannot be written,
    for a ``store`` that is somebody's other folder, and while another prepare of the same store is at work.
    """
    partial, spill = _partial_of(store), _spill_of(store, spill_dir)
    try:
        _check_is_ours(store)
        spill.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(store, error) from error
    with _locked(spill, store):
        try:
            state = _state_of(spill, provenance)
            if state is None:
                _empty(spill)
                shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True, exist_ok=True)
            yield Workspace(store=partial, spill=spill, state=state or State(), provenance=provenance)
            _replace(store, partial)
        except (OSError, pl.exceptions.PolarsError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _unwritable(store, error) from error
        except Exception:  # whatever it is; an interrupt is none, and leaves what the next start goes on from
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            _remove_unless_killed(spill, partial)


def remove_leftovers(store: Path, spill_dir: str) -> None:
    """Remove what a prepare left that was killed after its store was in place, before it had cleared up."""
    spill = _spill_of(store, spill_dir)
    if spill.is_dir():
        with _locked(spill, store):
            for folder in (_partial_of(store), _replaced_of(store)):
                shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(spill, ignore_errors=True)


def put_back(store: Path) -> None:
    """Return a store to its place that a kill took away, on a file system that cannot exchange two folders."""
    if not store.exists() and is_store(_replaced_of(store)):
        _replaced_of(store).rename(store)


def is_store(folder: Path) -> bool:
    """Whether ``folder`` is a finished store."""
    return (folder / "manifest.json").is_file()


def _partial_of(store: Path) -> Path:
    return store.with_name(f"{store.name}.partial")


def _replaced_of(store: Path) -> Path:
    return store.with_name(f"{store.name}.replaced")


def _spill_of(store: Path, spill_dir: str) -> Path:
    """Beside the store, or in ``spill_dir`` under a name that no other store has."""
    if not spill_dir:
        return store.with_name(f"{store.name}.spill")
    return Path(spill_dir) / f"{store.name}.spill-{hashlib.sha256(str(store.absolute()).encode()).hexdigest()[:12]}"


def _check_is_ours(store: Path) -> None:
    if store.exists() and not (store.is_dir() and (is_store(store) or not any(store.iterdir()))):
        raise DataError(f"data.store={store} exists and is no store; choose another folder or remove it")


def _unwritable(store: Path, error: Exception) -> DataError:
    reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    return DataError(f"data.store={store} cannot be written: {reason}")


class StoreBusyError(DataError):
    """Another process prepares the same store: it will be there, or free, when that has ended."""


@contextmanager
def _locked(spill: Path, store: Path) -> Iterator[None]:
    """Hold the only lock on ``spill``; the system frees it however this process ends."""
    folder = os.open(spill, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreBusyError(
                f"data.store={store} is being prepared by another process; wait until it ends"
            ) from error
        yield
    finally:
        os.close(folder)


def _state_of(spill: Path, provenance: object) -> State | None:
    try:
        saved = json.loads((spill / "state.json").read_text(encoding="utf-8"))
        return State(**saved["state"]) if saved["provenance"] == provenance else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_unless_killed(spill: Path, partial: Path) -> None:
    """``partial`` is gone after an end of either kind; while it is there, an interrupt has ended the work."""
    if not partial.exists():
        shutil.rmtree(spill, ignore_errors=True)


def _replace(store: Path, partial: Path) -> None:
    """Put ``partial`` in the place of ``store`` in one step, or in two of which :func:`put_back` undoes the first."""
    if not store.exists():
        partial.rename(store)
        return
    if _exchange(store, partial):
        shutil.rmtree(partial)
        return
    old = _replaced_of(store)
    store.rename(old)
    partial.rename(store)
    shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step where the system can (Linux's renameat2); False where it cannot."""
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None, use_errno=True)
        return libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
    return False
