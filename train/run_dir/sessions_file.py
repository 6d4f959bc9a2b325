"""``sessions.jsonl``: what each session of a run has spent, a line each, whole after any kill. Without torch."""

from pathlib import Path
from typing import Any

from configs.atomic_files import json_with_sum, parse_json_with_sum, write_atomically
from configs.errors import DataError

SESSIONS = "sessions.jsonl"
Line = dict[str, Any]


class SessionsFile:
    """Written by rank 0 of one session, which keeps the lines of the others as they are."""

    def __init__(self, folder: Path) -> None:
        """Read what earlier sessions have left. Raises :class:`OSError`.

        A line that is damaged stays in the file, is told, and is none of :attr:`earlier`.
        """
        self._path = folder / SESSIONS
        self.earlier: list[Line] = []
        text = self._path.read_text(encoding="utf-8", errors="surrogateescape") if self._path.is_file() else ""
        self._lines: list[Line | str] = [line for line in text.split("\n") if line]
        for number, line in enumerate(self._lines):
            try:
                self._lines[number] = found = parse_json_with_sum(str(line), f"{self._path}, line {number + 1}")
                self.earlier.append(found)
            except DataError as error:
                print(f"warning: {error}; what that session has spent is not counted", flush=True)

    def keep(self, line: Line) -> None:
        """Add ``line`` to those of other sessions."""
        self.earlier.append(line)
        self._lines.append(line)

    def write(self, own: Line) -> None:
        """Make ``own`` the last line, in the place of the one before. Raises :class:`OSError`."""
        write_atomically(self._path, "".join(map(_text_of, [*self._lines, own])))


def _text_of(line: Line | str) -> str:
    return f"{line}\n" if isinstance(line, str) else json_with_sum(line, indent=None)
