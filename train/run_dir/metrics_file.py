"""``metrics.jsonl``: a line a logged step, appended to; what a checkpoint has seen of it is never written again."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, TextIO

import xxhash

from configs.atomic_files import write_atomically

NAME = "metrics.jsonl"


class MetricsFile:
    """The history of a run, on rank 0. A checkpoint holds its length and sum, so that damage is found on a resume.

    Lines behind the checkpoint go by cutting the file, which loses nothing before them whatever happens meanwhile.
    """

    def __init__(self, folder: Path, step: int, num_bytes: int, total: str) -> None:
        """Go on after ``step``, whose checkpoint saw ``num_bytes`` with the sum ``total``; 0 where it saw none.

        Raises :class:`OSError`.
        """
        path = folder / NAME
        content = path.read_bytes() if path.exists() else b""
        if num_bytes and xxhash.xxh3_64(content[:num_bytes]).hexdigest() == total:
            content = content[:num_bytes]
            os.truncate(path, num_bytes)
        else:
            content = _repaired(path, content, step, was_seen=bool(num_bytes))
        self._sum, self.num_bytes = xxhash.xxh3_64(content), len(content)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def sum(self) -> str:
        """XXH3-64 of all lines so far, in hexadecimal."""
        return str(self._sum.hexdigest())

    def write(self, row: dict[str, Any]) -> None:
        """Append a line. Raises :class:`OSError`."""
        line = json.dumps(row) + "\n"
        self._file.write(line)
        self._file.flush()
        self._sum.update(line.encode())
        self.num_bytes += len(line.encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _repaired(path: Path, content: bytes, step: int, *, was_seen: bool) -> bytes:
    """The lines up to ``step`` that can be read, which become the file. What cannot be read is kept beside."""
    lines = content.splitlines(keepends=True)
    steps = [_step_of(line) for line in lines]
    kept = b"".join(line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step)
    is_torn = bool(lines) and steps[-1] is None and not lines[-1].endswith(b"\n")  # a kill in the middle of a line
    is_broken = None in (steps[:-1] if is_torn else steps)
    if was_seen or is_broken:
        _say(path, _set_aside(path) if content else None)
    if kept != content:
        write_atomically(path, kept)
    return kept


def _step_of(line: bytes) -> int | None:
    """None where ``line`` is not one that a run wrote."""
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"}\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _set_aside(path: Path) -> Path:
    """Another name of the file as it is: no room is needed, and the next write makes a new file."""
    number = 0
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    try:
        os.link(path, aside)
    except OSError:  # not every file system has links
        shutil.copyfile(path, aside)
    return aside


def _say(path: Path, aside: Path | None) -> None:
    if aside is None:
        print(f"warning: {path} is gone or empty; the run continues, its history begins here", flush=True)
    else:
        print(
            f"warning: {path} is damaged: it is not what the run wrote. Its readable lines stay, and the file as it "
            f"was is kept as {aside.name}; the run continues",
            flush=True,
        )
