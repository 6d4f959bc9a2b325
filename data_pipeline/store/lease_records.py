"""What is written down of the writers of a folder or URL: one record each, whose number is made once and for ever.

``PLACE/.writer/00000007.json`` is the record of the seventh writer. Whoever makes the record of the next number is
the next writer: a folder makes a file exclusively; an object store overwrites, so that there the claims decide.
"""

import getpass
import json
import os
import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from data_pipeline.store.paths import AnyPath, ObjectPath

FOLDER = ".writer"
"""In a run or a store; what is in it is ours."""
STALE_S = 20.0
"""A writer of another machine whose record has not changed for so long is taken for gone. No clocks are compared:
whoever wants to write watches the record for so long."""
POLL_S = 0.5
_RECORD = re.compile(r"\d{8}\.json")
_OBJECT = re.compile(rf"{re.escape(FOLDER)}/\d{{8}}\.(json|claim-[0-9a-f]+)")
_MAX_COMMAND = 200


@dataclass(kw_only=True, slots=True)
class Writer:
    """Who writes, as the others read it."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    host: str = field(default_factory=lambda: os.uname().nodename)
    kernel: str = field(default_factory=lambda: this_kernel())
    process: int = field(default_factory=os.getpid)
    started: str = field(default_factory=lambda: start_of(os.getpid()))
    """Of the process, in the kernel's words: an id alone is given again."""
    user: str = field(default_factory=lambda: _user())
    since: str = field(default_factory=lambda: datetime.now(UTC).isoformat(" ", "seconds"))
    command: str = field(default_factory=lambda: shlex.join(sys.orig_argv)[:_MAX_COMMAND])
    num_beats: int = 0
    has_released: bool = False

    def is_of_this_kernel(self) -> bool:
        """Whether this process can see whether that one is alive."""
        return bool(self.kernel) and self.kernel == this_kernel()

    def is_alive(self) -> bool:
        """Whether the process, of this kernel, is there."""
        return start_of(self.process) == self.started

    def text(self) -> str:
        """As it is written down."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        return f"process {self.process} of {self.user} on {self.host}, since {self.since}"


def writer_of(text: str) -> Writer | None:
    """None for what is not, or not yet, a whole record."""
    try:
        return replace(Writer(), **json.loads(text))
    except (ValueError, TypeError):
        return None


def this_kernel() -> str:
    """The boot and the namespace in which process ids of this process mean what they say; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def start_of(process: int) -> str:
    """When ``process`` of this kernel was started; empty where it is gone, or has ended and was not waited for."""
    try:
        stat = Path(f"/proc/{process}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat.rpartition(b")")[2].decode().split()
    return "" if fields[0] in ("Z", "X") else fields[19]


class Watch:
    """Looks at a record again and again: has it changed, or has it been still for :data:`STALE_S`?"""

    def __init__(self, text: str) -> None:
        self._text, self._since_s = text, time.monotonic()
        self.has_changed = False

    def look(self, text: str) -> None:
        """Take in what the record says now."""
        self.has_changed |= text != self._text

    @property
    def is_stale(self) -> bool:
        """Whether nobody is there to change it."""
        return not self.has_changed and time.monotonic() - self._since_s > STALE_S


class FolderRecords:
    """The records in a folder, which may be on a disk that several machines mount."""

    def __init__(self, place: Path) -> None:
        self.folder = place / FOLDER

    def newest(self) -> int:
        """The number of the last writer, 0 where there was none."""
        return max((int(path.stem) for path in self.folder.glob("*.json") if _RECORD.fullmatch(path.name)), default=0)

    def read(self, number: int) -> str:
        """Empty where it is not there."""
        try:
            return (self.folder / _name(number)).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def write(self, number: int, writer: Writer) -> None:
        """Over the writer's own record. ``FileNotFoundError`` where the folder is gone."""
        partial = self.folder / f"{_name(number)}.{writer.token}"
        partial.write_text(writer.text(), encoding="utf-8")
        partial.replace(self.folder / _name(number))

    def create(self, number: int, writer: Writer, is_alive: Callable[[], None]) -> bool:
        """Whether this call made the record: one call of all on all machines does."""
        try:
            with (self.folder / _name(number)).open("x", encoding="utf-8") as file:
                file.write(writer.text())
        except FileExistsError:
            return False
        for old in self.folder.glob("*.json*"):
            if old.name[:8].isdecimal() and int(old.name[:8]) < number:
                old.unlink(missing_ok=True)
        return True

    def remove(self, number: int) -> None:
        """The record, and the folder with its locks where no other writer has come."""
        (self.folder / _name(number)).unlink(missing_ok=True)
        for name in ("lock", "members"):
            (self.folder / name).unlink(missing_ok=True)
        self.folder.rmdir()


class ObjectRecords:
    """The records below a URL. A store that lists what was written (S3 does, since 2020) is asked this way:

    who wants the number writes a claim and then lists. Of two, at least the later one sees the other, so that one who
    sees no other claim has the number; of those who see each other the lowest token goes on and the others withdraw.
    A claim whose writer seems to be gone is removed, and its writer looks for it once more after it has written its
    record: one that only slept, and wakes as another one has the number, gives way.
    """

    def __init__(self, place: ObjectPath) -> None:
        self.place = place / FOLDER

    def newest(self) -> int:
        """The number of the last writer, 0 where there was none."""
        return max((int(name[:8]) for name in self._names() if _RECORD.fullmatch(name)), default=0)

    def read(self, number: int) -> str:
        """Empty where it is not there."""
        return self._read(_name(number))

    def write(self, number: int, writer: Writer) -> None:
        """Over the writer's own record."""
        (self.place / _name(number)).write_bytes(writer.text().encode())

    def create(self, number: int, writer: Writer, is_alive: Callable[[], None]) -> bool:
        """Whether this call made the record: one call of all on all machines does."""
        claim = f"{number:08d}.claim-{writer.token}"
        has_won = self._is_first(number, claim, replace(writer), is_alive)
        if has_won:
            self.write(number, writer)  # before the claim goes: who lists sees one or the other
            if claim not in self._names():
                self.write(number, replace(writer, has_released=True))
                return False
        outdated = [name for name in self._names() if int(name[:8]) < number] if has_won else []
        for name in [claim, *outdated]:
            self._remove(name)
        return has_won

    def remove(self, number: int) -> None:
        """The record."""
        self._remove(_name(number))

    def _is_first(self, number: int, claim: str, contender: Writer, is_alive: Callable[[], None]) -> bool:
        watches = dict[str, Watch]()
        while True:
            (self.place / claim).write_bytes(contender.text().encode())
            names = self._names()
            if any(_RECORD.fullmatch(name) and int(name[:8]) >= number for name in names):
                return False
            others = [name for name in names if name.startswith(f"{number:08d}.claim-") and name != claim]
            states = {name: self._state_of(name, watches) for name in others}
            if not others:
                return True
            if all(state == "dead" for state in states.values()):
                for name in others:
                    self._remove(name)
                continue  # one of them may have become the writer before its claim was removed
            if any(states[name] == "alive" and name < claim for name in others):
                return False
            is_alive()
            time.sleep(POLL_S)
            contender.num_beats += 1

    def _state_of(self, name: str, watches: dict[str, Watch]) -> str:
        """Of another's claim: dead, alive, unknown while it is watched, or withdrawn; then look for a record."""
        text = self._read(name)
        if not text:
            return "withdrawn"
        other = writer_of(text)
        if other is not None and other.is_of_this_kernel():
            return "alive" if other.is_alive() else "dead"
        watch = watches.setdefault(name, Watch(text))
        watch.look(text)
        return "dead" if watch.is_stale else "alive" if watch.has_changed else "unknown"

    def _names(self) -> list[str]:
        return [each.name for each in self.place.files_below() if each.name[:8].isdecimal()]

    def _read(self, name: str) -> str:
        try:
            return (self.place / name).read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _remove(self, name: str) -> None:
        try:
            (self.place / name).unlink()
        except FileNotFoundError:
            return


Records = FolderRecords | ObjectRecords


def is_of_lease(name: str) -> bool:
    """Whether a lease has written the object ``name``, by its path from the place."""
    return _OBJECT.fullmatch(name) is not None


def records_of(place: AnyPath) -> Records:
    """Those of ``place``, which for a folder are made when the first writer comes."""
    return FolderRecords(place) if isinstance(place, Path) else ObjectRecords(place)


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _user() -> str:

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}"
