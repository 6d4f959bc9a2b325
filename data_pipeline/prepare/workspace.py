"""The two folders of a prepare at work, the version that it fills and the spill beside it: both outlive a kill."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import polars as pl

from configs.errors import DataError
from data_pipeline.prepare.ownership import MARK, OF_A_SPILL, OF_A_STORE, foreign_in, remove_ours
from data_pipeline.prepare.store_lease import writing_store
from data_pipeline.store.lease import LeaseError


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
    """``store`` becomes a version when all is well; ``spill`` vanishes then, with ``state`` in it."""

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
def workspace_of(
    store: Path, spill_dir: str, provenance: object, publish: Callable[[Path], None]
) -> Iterator[Workspace]:
    """The folders to work in, as a killed prepare of the same ``provenance`` left them, else empty.

    When the block ends well, ``publish`` moves the filled folder to its place; an error removes of both folders what
    a prepare has written, and leaves ``store`` as it was; a kill leaves all three. Raises ``DataError`` for
    a folder that cannot be written and for somebody else's files in its way. The caller holds the lease of the store.
    """
    partial, spill = _partial_of(store), _spill_of(store, spill_dir)
    with _writable(store):
        is_new = _claimed(spill, OF_A_SPILL, store)
    try:
        with _writable(store):
            was_ours = not is_new and (spill / MARK).is_file()
            _claimed(partial, OF_A_STORE, store, needs_mark=not was_ours)
    except DataError:
        if is_new:
            remove_ours(spill, [MARK])
        raise
    with _cleared(spill, partial, is_new), _writable(store):
        state = _state_of(spill, provenance)
        if state is None:
            _empty(spill, OF_A_SPILL)
            _empty(partial, OF_A_STORE)
        yield Workspace(store=partial, spill=spill, state=state or State(), provenance=provenance)
        _refuse_foreign(partial, [*OF_A_STORE, MARK])
        (partial / MARK).unlink(missing_ok=True)
        publish(partial)


def remove_leftovers(store: Path, spill_dir: str) -> None:
    """Remove what a prepare left that was killed after its version was in place, before it had cleared up."""
    spill = _spill_of(store, spill_dir)
    if (spill / MARK).is_file():
        with (
            suppress(LeaseError),
            writing_store(store, f"data.store={store}"),
        ):  # else it is at work there
            remove_ours(_partial_of(store), [*OF_A_STORE, MARK])
            remove_ours(spill, [*OF_A_SPILL, MARK])


def _partial_of(store: Path) -> Path:
    """Beside the store, and inside of one that is a disk of its own, so that it is renamed within one file system."""
    return store / ".partial" if os.path.ismount(store) else store.with_name(f"{store.name}.partial")


def _spill_of(store: Path, spill_dir: str) -> Path:
    """Beside the store, or in ``spill_dir`` under a name that no other store has."""
    if not spill_dir:
        return store.with_name(f"{store.name}.spill")
    return Path(spill_dir) / f"{store.name}.spill-{hashlib.sha256(str(store.absolute()).encode()).hexdigest()[:12]}"


def _claimed(folder: Path, ours: Sequence[str], store: Path, needs_mark: bool = False) -> bool:
    """Make ``folder``, with a mark that it is a prepare's; whether it is new. DataError for somebody else's.

    An empty folder for the spill may be somebody else's; one that becomes a version may not: ``needs_mark``.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise DataError(
            f"{folder} is in the way of data.store={store}; move it elsewhere, or name another data.store"
        )
    if not folder.exists():
        folder.mkdir(parents=True)
        (folder / MARK).write_text(json.dumps({"store": str(store)}) + "\n", encoding="utf-8")
        return True
    if not (folder / MARK).is_file() and (needs_mark or (ours is OF_A_SPILL and any(folder.iterdir()))):
        raise DataError(
            f"{folder} is in the way of data.store={store}, and no prepare of it has made that folder; move it "
            f"elsewhere, or name another data.store"
        )
    _refuse_foreign(folder, [*ours, MARK])
    return False


def _refuse_foreign(folder: Path, ours: Sequence[str]) -> None:
    folders = {pattern.rpartition("/")[0] for pattern in ours}
    if foreign := [name for name in foreign_in(folder, ours) if name not in folders]:
        raise ForeignFiles(
            f"{folder} holds {', '.join(foreign[:3])}, which no prepare has written; move it elsewhere and start the "
            f"same command again"
        )


class ForeignFiles(DataError):
    """Somebody else's files lie where a prepare works: what was done is kept, for when they are gone."""


@contextmanager
def _writable(store: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise _unwritable(store, error) from error


def _unwritable(store: Path, error: Exception) -> DataError:
    reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    return DataError(f"data.store={store} cannot be written: {reason}")


@contextmanager
def _cleared(spill: Path, partial: Path, is_new: bool) -> Iterator[None]:
    """Remove both folders at an end of either kind; an interrupt is none, and leaves what the next start needs.

    A folder that was there before, empty and without a mark, is somebody's: it is emptied again and stays.
    """
    marks = [MARK] if is_new or (spill / MARK).is_file() else []
    try:
        yield
    except (ForeignFiles, LeaseError):  # after a loss both are the next writer's
        raise
    except Exception:  # whatever it is
        remove_ours(partial, [*OF_A_STORE, MARK])
        _clear(spill, marks)
        raise
    _clear(spill, marks)


def _clear(spill: Path, marks: list[str]) -> None:
    _empty(spill, OF_A_SPILL) if not marks else remove_ours(spill, [*OF_A_SPILL, *marks])


def _state_of(spill: Path, provenance: object) -> State | None:
    try:
        saved = json.loads((spill / "state.json").read_text(encoding="utf-8"))
        return State(**saved["state"]) if saved["provenance"] == provenance else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _empty(folder: Path, ours: Sequence[str]) -> None:
    """Remove what fits ``ours``; the folder itself stays."""
    remove_ours(folder, ours)
    folder.mkdir(exist_ok=True)
