"""One writer at a time for a folder or URL: a run, a store.

In a folder the kernel holds a lock for the writer and frees it when the process dies, however it does. A lock may
exclude nobody over NFS and is not known to object stores. So the writer also keeps a record of itself, which it
renews every few seconds, under a number that is given once (``lease_records``). A writer that was thought dead finds
a later number than its own when it wakes, and :meth:`Lease.check` raises before anything of it is published.
"""

import errno
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from configs.errors import ConfigError, DataError
from data_pipeline.store.lease_records import FOLDER, POLL_S, STALE_S, Records, Watch, Writer, records_of, writer_of
from data_pipeline.store.paths import AnyPath

BEAT_S = 2.0
"""How often a writer renews its record."""
DYING_S = 10.0
"""How long a start waits for the processes of a job that was killed a moment ago."""
_WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What a file system says that has no locks."""


class LeaseError(ConfigError):
    """Somebody else writes there; the message says who, since when, on which machine, and what to do."""


class Lease:
    """The right to write below a place, held from the making of this to :meth:`release`; a context.

    ``fence`` grows by one with every writer of the place, and begins anew once it was withdrawn.
    """

    def __init__(
        self,
        place: AnyPath,
        what: str,
        is_alive: Callable[[], None] = lambda: None,
        on_loss: Callable[[str], None] = lambda words: None,
    ) -> None:
        """Take the lease of ``place``; ``what`` names it in messages, as the user typed it (``run_dir=runs/a``).

        Raises :class:`LeaseError` while another writer is there. One that was killed is waited for, and one on
        another machine is watched for up to ``STALE_S``; ``is_alive`` is called meanwhile. ``on_loss`` is called with
        the reason, on a thread, when the lease is found to be lost. Makes the folder.
        """
        self._place, self._what, self._lost, self._on_loss = place, what, "", on_loss
        self._records: Records = records_of(place)
        self._lock = _open_lock(place, what) if isinstance(place, Path) else None
        self._is_over = threading.Event()
        with ExitStack() as not_taken:
            not_taken.callback(_close, self._lock)
            self._wait_for_lock(is_alive)
            self.writer, self.fence = Writer(), 0
            while not self.fence:
                self.fence = self._take_number(is_alive)
            not_taken.pop_all()
        self._thread = threading.Thread(target=self._keep_renewing, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Look now whether the lease is still held; raises :class:`LeaseError` where it is not.

        To be called right before something is published: a manifest, a checkpoint's last file, a summary.
        """
        if not self._lost:
            self._lost = self._loss()
        self.held()

    def held(self) -> None:
        """The same by what the last renewal found: costs nothing, for what is written often."""
        if self._lost:
            raise LeaseError(self._lost)

    def release(self) -> None:
        """Let the next writer in at once. May be called twice."""
        if self._has_stopped():
            return
        if not self._lost:
            self.writer.has_released = True
            with suppress(DataError, OSError):  # the next writer then waits until the record is stale
                self._records.write(self.fence, self.writer)
        _close(self._lock)

    def withdraw(self) -> None:
        """As :meth:`release`, and remove what the lease has written: for a place that shall hold nothing else."""
        if self._has_stopped():
            return
        with suppress(DataError, OSError):  # what stays is of a process that has ended, which the next writer sees
            if not self._lost and not self._loss():
                self._records.remove(self.fence)
        _close(self._lock)

    def _has_stopped(self) -> bool:
        """End the renewing; whether it was ended before."""
        if self._is_over.is_set():
            return True
        self._is_over.set()
        self._thread.join()
        return False

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _wait_for_lock(self, is_alive: Callable[[], None]) -> None:
        """Of the writer, then of the processes that it has left behind."""
        if self._lock is None:
            return
        deadline = time.monotonic() + DYING_S
        while not _try_lock(self._lock, fcntl.LOCK_EX):
            holder = writer_of(self._records.read(self._records.newest()))
            is_dying = holder is None or (holder.is_of_this_kernel() and not holder.is_alive()) or holder.has_released
            if not is_dying or time.monotonic() > deadline:
                raise _refusal(self._what, holder)
            is_alive()
            time.sleep(POLL_S)
        assert isinstance(self._place, Path), "a URL has no lock"
        _wait_until_gone(self._place, self._what, deadline, is_alive)

    def _take_number(self, is_alive: Callable[[], None]) -> int:
        """The number of this writer; 0 where another one was faster and has let go again."""
        last = self._records.newest()
        if last:
            self._wait_until_free(last, is_alive)
            if self._records.newest() != last:
                return 0  # withdrawn, or another one was faster
        if self._records.create(last + 1, self.writer, is_alive):
            return last + 1
        holder = self._first_of(last + 1, is_alive)
        if holder is not None and holder.has_released:
            return 0
        raise _refusal(self._what, holder)

    def _first_of(self, number: int, is_alive: Callable[[], None]) -> Writer | None:
        """Who was faster, as soon as that is written down."""
        deadline = time.monotonic() + DYING_S
        while (holder := writer_of(self._records.read(number))) is None and time.monotonic() < deadline:
            is_alive()
            time.sleep(POLL_S)
        return holder

    def _wait_until_free(self, number: int, is_alive: Callable[[], None]) -> None:
        """Return when the writer of record ``number`` has released it or is gone."""
        text = self._records.read(number)
        watch, is_told = Watch(text), False
        while not watch.is_stale:
            holder = writer_of(text)
            if holder is not None and holder.has_released:
                return
            if holder is not None and holder.is_of_this_kernel():
                if not holder.is_alive():
                    return
                raise _refusal(self._what, holder)
            if watch.has_changed:
                raise _refusal(self._what, holder)
            if not is_told:
                who = holder or "another process"
                words = f"{self._what}: looking for up to {STALE_S:.0f} s whether {who} still writes"
                print(words, file=sys.stderr, flush=True)
                is_told = True
            is_alive()
            time.sleep(POLL_S)
            if self._records.newest() != number:
                return  # a next writer came and cleared this one's record away
            text = self._records.read(number)
            watch.look(text)

    def _keep_renewing(self) -> None:
        while not self._is_over.wait(BEAT_S) and not self._lost:
            self.writer.num_beats += 1
            try:
                self._lost = self._loss()
                if not self._lost:
                    self._records.write(self.fence, self.writer)
            except FileNotFoundError:
                self._lost = self._removed()
            except (DataError, OSError):
                continue  # no answer is no loss: check() asks again before anything is published
        if self._lost and not self._is_over.is_set():
            self._on_loss(self._lost)

    def _loss(self) -> str:
        """Why the lease is lost; empty while it is held."""
        newest = self._records.newest()
        if newest < self.fence:
            return self._removed()
        record = self._records.read(newest)
        if not record:
            return self._removed()
        holder = writer_of(record)
        if newest == self.fence and holder is not None and holder.token == self.writer.token:
            return ""
        return (
            f"{self._what} was taken over by {holder or 'another process'}, since this process had not answered for "
            f"{STALE_S:.0f} s; it ends and writes nothing more"
        )

    def _removed(self) -> str:
        return f"{self._what} was removed or moved away while this process wrote there; it ends and writes no more"


class Presence:
    """Says that this process still belongs to a job that writes in ``folder``, until it dies: the next writer waits
    for all of them. For the processes of a job beside its writer."""

    def __init__(self, folder: Path, what: str) -> None:
        """The writer of the job has the lease; ``what`` as of :class:`Lease`."""
        self._file = _open_lock(folder, what, "members")
        _try_lock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """The process goes on, and no longer belongs to the job."""
        os.close(self._file)


def refuse_if_written(place: Path, what: str) -> None:
    """Raise :class:`LeaseError` where a living process of this machine writes below ``place``; changes nothing."""
    records = records_of(place)
    holder = writer_of(records.read(records.newest()))
    if holder is None or holder.has_released or not holder.is_of_this_kernel() or not holder.is_alive():
        return
    raise _refusal(what, holder)


def _refusal(what: str, holder: Writer | None) -> LeaseError:
    who = f"by {holder}" if holder else "by another process"
    ends = f"end it there (`kill {holder.process}`: what it has done is kept)" if holder else "end that process"
    return LeaseError(f"{what} is being written {who}; wait until it has ended, {ends}, or choose another")


def _open_lock(place: Path, what: str, name: str = "lock") -> int:
    try:
        (place / FOLDER).mkdir(parents=True, exist_ok=True)
        return os.open(place / FOLDER / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and _can_make(place):
            raise  # withdrawn by the last writer, just now
        raise ConfigError(f"{what} cannot be written: {error.strerror}; choose another") from error


def _can_make(place: Path) -> bool:
    """Whether ``place`` is there, made where it was not: below ``/proc`` nothing can be."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        return False
    return True


def _try_lock(file: int, kind: int) -> bool:
    """Whether the lock is held now; True as well where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    return True


def _wait_until_gone(place: Path, what: str, deadline: float, is_alive: Callable[[], None]) -> None:
    """Until no process of an earlier job is there."""
    members = _open_lock(place, what, "members")
    try:
        while not _try_lock(members, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise LeaseError(
                    f"{what}: processes of an earlier start are still there, though its first one is gone; end them "
                    f"(`fuser {place / FOLDER / 'members'}` names them) and start the same command again"
                )
            is_alive()
            time.sleep(POLL_S)
    finally:
        os.close(members)


def _close(file: int | None) -> None:
    if file is not None:
        os.close(file)
