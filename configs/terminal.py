"""A terminal that has gone, a closed pipe or stream: what a command prints is lost then, and nothing else."""

import errno
import io
import os
import sys
from typing import TextIO

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


class _Lasting(io.FileIO):
    """Writes to nowhere from the first error on that says that the reader has gone."""

    def write(self, content: "bytes | memoryview") -> int:  # type: ignore[override]
        try:
            return super().write(content) or 0
        except OSError as error:
            if error.errno in _IS_GONE:
                _point_to_null(self.fileno())
            elif error.errno not in _IS_FULL:
                raise
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
