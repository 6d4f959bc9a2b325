"""A run behind a URL and its copy in a local folder: what is sent, what is fetched, in which order. Without torch.

Below the URL: the run's records (``metrics.jsonl`` and the like), and ``checkpoints/NAME/FILE.SUM``, where SUM is
that of the content. So no other content is ever written over a file, and ``checkpoints/NAME/progress.json``, which
lists files and sums and is sent last, says which of them are the checkpoint: a kill at any moment leaves the old one
or the new one.
"""

import threading
from contextlib import suppress
from pathlib import Path

from configs.atomic_files import parse_json_with_sum, write_atomically
from configs.errors import ConfigError, DataError
from configs.run_dir import describe_run_dir, local_run_dir
from configs.schema import RunConfig
from configs.url import is_url
from data_pipeline.store.paths import ObjectPath, ObjectStatus
from train.progress import PROGRESS
from train.run_dir.checkpoint_folder import (
    PARTIAL,
    REPLACED,
    is_checkpoint_file,
    is_checkpoint_name,
    is_step_name,
    remove_checkpoint,
    series_of,
)
from train.run_dir.identity import IDENTITY, OVERRIDES, STOPPED
from train.run_dir.sessions_file import SESSIONS

RECORDS = (
    *(IDENTITY, STOPPED, OVERRIDES, "config.yaml", "environment.json"),
    *("metrics.jsonl", "summary.json", "ranks.parquet", "refit/metrics.jsonl", SESSIONS, "trackers.json"),
)
EVENTS = ("events", "refit/events", "profile")
CHECKPOINTS = "checkpoints"

Files = dict[str, list[int | str]]
"""Size and sum of the files of a checkpoint, by name, as ``progress.json`` tells them."""


class RemoteRun:
    """The objects of a run and the folder in which this machine has what it needs of them. Nothing is collective."""

    def __init__(self, config: RunConfig, reader: str = "") -> None:
        """``reader``: as of :func:`configs.run_dir.local_run_dir`."""
        self.place, self.folder = ObjectPath(config.run_dir), local_run_dir(config, reader)
        self._written_to = describe_run_dir(config)
        self._known: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def fetch_records(self) -> None:
        """Make the local records those of the store, which is right where both differ."""
        self._make_folder()
        there = {name: status for name, status in self._objects().items() if _is_record(name)}
        for name in self._records_here():
            if name not in there:
                (self.folder / name).unlink()
        for name, status in there.items():
            if not _is_copy(self.folder / name, status):
                (self.place / name).fetch(self.folder / name)
        self._known = {name: _version(self.folder / name) for name in there}

    def send_records(self) -> None:
        """Send the records that have changed since they were fetched or sent, and remove those that are gone."""
        with self._lock:
            here = self._records_here()
            for name in here:
                version = _version(self.folder / name)  # before it is read: what is added meanwhile is sent later
                if self._known.get(name) != version:
                    (self.place / name).write_bytes((self.folder / name).read_bytes())
                    self._known[name] = version
            for name in self._known.keys() - set(here):
                _remove(self.place / name)
                del self._known[name]

    def send_sessions(self) -> None:
        """Send what the sessions have spent, between two sendings of all records. From any thread."""
        with self._lock:
            self._known[SESSIONS] = _version(self.folder / SESSIONS)
            (self.place / SESSIONS).write_bytes((self.folder / SESSIONS).read_bytes())

    def fetch_list(self) -> None:
        """Make the local checkpoints those of the store: each one's ``progress.json``; of the other files those stay
        that are here already and of the same content."""
        self._make_folder()
        names = [name for name, objects in self._checkpoint_objects().items() if PROGRESS in objects]
        texts = {name: text for name in names if (text := self.progress_of(name))}
        for folder in (self.folder / CHECKPOINTS).glob("*"):
            is_same = folder.name in texts and _files_in(folder) == _files_of(texts[folder.name])
            if is_checkpoint_name(folder.name.removesuffix(REPLACED).removesuffix(PARTIAL)) and not is_same:
                remove_checkpoint(folder)
        for name, text in texts.items():
            self._write_progress(name, text)

    def fetch_files(self, name: str, part: int, num_parts: int) -> None:
        """Fetch a part of the files of checkpoint ``name`` that are not here. One that is not in the store either is
        left to those who check the files."""
        folder = self.folder / CHECKPOINTS / name
        files = _files_in(folder)
        for file in sorted(files)[part::num_parts]:
            size, total = files[file]
            if not ((folder / file).is_file() and (folder / file).stat().st_size == size):
                with suppress(FileNotFoundError):
                    (self.place / CHECKPOINTS / name / f"{file}.{total}").fetch(folder / file)

    def expect_files(self, name: str, progress: str, is_damaged: bool) -> None:
        """Let checkpoint ``name`` be the one of which ``progress`` lists the files; local ones of another, or all
        where they are damaged, go."""
        folder = self.folder / CHECKPOINTS / name
        if is_damaged or _files_in(folder) != _files_of(progress):
            remove_checkpoint(folder)
        self._write_progress(name, progress)

    def progress_of(self, name: str) -> str:
        """``progress.json`` of checkpoint ``name`` as the store has it now; empty where that is not whole."""
        try:
            content = (self.place / CHECKPOINTS / name / PROGRESS).read_bytes()
        except FileNotFoundError:
            return ""
        return content.decode("utf-8", "surrogateescape")

    def send_files(self, name: str, folder: Path, files: Files) -> None:
        """Send ``files`` of ``folder``, written by one rank, as parts of checkpoint ``name``."""
        for file, (_, total) in files.items():
            (self.place / CHECKPOINTS / name / f"{file}.{total}").send(folder / file)

    def complete(self, name: str, progress: str, keep_last: int) -> None:
        """Send what makes checkpoint ``name`` whole, all of its files being there, after the records: what was logged
        up to a checkpoint must be there when it is. Then the files of an earlier one of the name go, and the oldest
        ``step-*``."""
        self.send_records()
        (self.place / CHECKPOINTS / name / PROGRESS).write_bytes(progress.encode())
        there = self._checkpoint_objects()
        kept = {PROGRESS, *(f"{file}.{total}" for file, (_, total) in _files_of(progress).items())}
        for object_name in filter(_is_ours, there[name] - kept):
            _remove(self.place / CHECKPOINTS / name / object_name)
        steps = [each for each in sorted(there) if is_step_name(each) and PROGRESS in there[each]]
        for old in [each for each in steps if series_of(each) == series_of(name)][:-keep_last]:
            self._remove_checkpoint(old, there[old])

    def drop_steps(self, series: str) -> None:
        """Remove the steps' checkpoints of ``series``."""
        for name, objects in self._checkpoint_objects().items():
            if is_step_name(name) and series_of(name) == series:
                self._remove_checkpoint(name, objects)

    def sweep(self) -> None:
        """Remove what an interrupted sending has left: files of checkpoints that were never whole."""
        for name, objects in self._checkpoint_objects().items():
            if PROGRESS not in objects and is_checkpoint_name(name):
                self._remove_checkpoint(name, objects)

    def _remove_checkpoint(self, name: str, objects: set[str]) -> None:
        """What makes it whole first; what is not ours stays."""
        for each in sorted(filter(_is_ours, objects), key=lambda each: each != PROGRESS):
            _remove(self.place / CHECKPOINTS / name / each)

    def _checkpoint_objects(self) -> dict[str, set[str]]:
        """The names of all objects of each checkpoint."""
        found: dict[str, set[str]] = {}
        for each in (self.place / CHECKPOINTS).files_below():
            found.setdefault(each.parts[-2], set()).add(each.name)
        return found

    def _objects(self) -> dict[str, ObjectStatus]:
        """All objects of the run, by their names below its URL."""
        skipped = len(self.place.url) + 1
        return {each.url[skipped:]: status for each, status in self.place.files_below().items()}

    def _records_here(self) -> list[str]:
        events = [f"{folder}/{path.name}" for folder in EVENTS for path in (self.folder / folder).glob("*")]
        names = [*RECORDS, *sorted(events)]
        return [name for name in names if (self.folder / name).is_file()]

    def _write_progress(self, name: str, text: str) -> None:
        folder = self.folder / CHECKPOINTS / name
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PROGRESS, text)

    def _make_folder(self) -> None:
        try:
            (self.folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._written_to} cannot be written: {error.strerror}; choose another") from error


def remote_run_of(config: RunConfig) -> RemoteRun | None:
    """None where ``run_dir`` is a folder."""
    return RemoteRun(config) if is_url(config.run_dir) else None


def _is_ours(object_name: str) -> bool:
    """``progress.json``, or FILE.SUM of a file of a checkpoint."""
    return object_name == PROGRESS or is_checkpoint_file(object_name.rpartition(".")[0])


def _is_record(name: str) -> bool:
    return name in RECORDS or name.rpartition("/")[0] in EVENTS


def _is_copy(path: Path, status: ObjectStatus) -> bool:
    """Whether ``path`` is as it was fetched, which gave it the object's time of change."""
    return path.is_file() and _version(path) == (status.st_size, status.st_mtime_ns)


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _files_in(folder: Path) -> Files:
    try:
        return _files_of((folder / PROGRESS).read_bytes().decode("utf-8", "surrogateescape"))
    except OSError:
        return {}


def _files_of(progress: str) -> Files:
    """None where ``progress`` is damaged, which those tell who check the files."""
    try:
        return dict(parse_json_with_sum(progress, PROGRESS)["files"])
    except (DataError, KeyError, TypeError, ValueError):
        return {}


def _remove(place: ObjectPath) -> None:
    with suppress(FileNotFoundError):  # it was removed by a request whose answer was lost
        place.unlink()
