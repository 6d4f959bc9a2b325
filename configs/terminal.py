"""Output that is lost, as when a terminal has gone or a pipe is closed, and output that is copied to a log."""

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

from configs.errors import DataError

_IS_GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO)
_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def survive_lost_output() -> None:
    """Let ``print`` go on when nobody reads stdout or stderr any more (``train | head -1``), or never did (``>&-``).

    To be called by a process before it opens a file: a closed stdout would give its number to that file.
    """
    for number in (0, 1, 2):
        _open_if_closed(number)
    if not isinstance(getattr(getattr(sys.stdout, "buffer", None), "raw", None), _Lasting):
        sys.stdout = _lasting(sys.stdout, 1)
        sys.stderr = _lasting(sys.stderr, 2)


def require_shown() -> None:
    """Raise :class:`DataError` where stdout could not take all: for a command whose result is what it prints."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, _Lasting) and raw.refused:
        raise DataError(f"stdout did not take all that was printed ({raw.refused}); write it to another place")


class Tee(io.TextIOBase):
    """Writes to ``shown`` as before, and adds the same to ``log``."""

    def __init__(self, shown: TextIO, log: TextIO) -> None:
        self.shown, self._log = shown, log

    def write(self, text: str) -> int:
        """Write ``text`` to both."""
        self.write_log(text)
        return self.shown.write(text)

    def write_log(self, text: str) -> None:
        """Write ``text`` to the log alone, as far as it can take it: no command ends for a log."""
        with suppress(OSError):  # a full disk, or a file system that went away
            self._log.write(text)
            self._log.flush()

    def flush(self) -> None:
        """Flush what is shown; the log is flushed with each write."""
        self.shown.flush()

    def isatty(self) -> bool:
        """Whether what is shown is shown on a terminal."""
        return self.shown.isatty()

    def fileno(self) -> int:
        """The file of what is shown: native libraries write there and not to the log."""
        return self.shown.fileno()


class _Lasting(io.FileIO):
    """Writes to nowhere from the first error on that says that the reader has gone."""

    refused: str = ""
    """Why something was not written, though there may be a reader."""

    def write(self, content: "bytes | memoryview") -> int:  # type: ignore[override]
        try:
            return super().write(content) or 0
        except OSError as error:
            if error.errno in _IS_GONE:
                _point_to_null(self.fileno())
            elif error.errno not in _IS_FULL:
                raise
            else:
                self.refused = os.strerror(error.errno)
            return memoryview(content).nbytes


def _lasting(stream: TextIO | None, number: int) -> TextIO:
    raw = _Lasting(number, "w", closefd=False)
    is_terminal = os.isatty(number)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors=getattr(stream, "errors", None) or "backslashreplace",
        line_buffering=is_terminal or number == 2,
        write_through=bool(getattr(stream, "write_through", False)),
    )


def _open_if_closed(number: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        _point_to_null(number)


def _point_to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)
