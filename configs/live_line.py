"""How far a command is: one live line with a bar on a terminal; in a pipe or a log file, plain lines."""

import sys
from typing import TYPE_CHECKING, TextIO

from configs.terminal import Tee

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BAR_WIDTH = 24


class LiveLine:
    """Shows lines of progress on ``stream``, by default stdout as it is when a line comes.

    On a terminal each one takes the place of the last, beside a bar; the last one stays when it is closed. Where the
    stream is copied to a log, the log has every line, without the bar.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._bar: tuple[Progress, TaskID] | None = None
        self._last = ""

    def show(self, line: str, done: int, total: int) -> None:
        """Show ``line`` and that ``done`` of ``total`` steps or rows are done; with the last of them the bar goes."""
        stream = self._stream or sys.stdout
        if not stream.isatty() or done >= total:
            self.say(line)
            return
        if isinstance(stream, Tee):
            stream.write_log(f"{line}\n")
        if self._bar is None:
            self._bar = _bar_on(stream.shown if isinstance(stream, Tee) else stream, total)
        self._last = line
        progress, task = self._bar
        progress.update(task, completed=done, total=total, description=line, refresh=True)

    def say(self, line: str) -> None:
        """Print ``line`` for good; a bar comes back below it with the next line that is shown."""
        self._take_away()
        print(line, file=self._stream or sys.stdout, flush=True)

    def close(self) -> None:
        """Take the bar away; its last line stays."""
        if self._bar is not None:
            screen, last = self._bar[0].console.file, self._last
            self._take_away()
            print(last, file=screen, flush=True)

    def _take_away(self) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None


def _bar_on(screen: TextIO, total: int) -> "tuple[Progress, TaskID]":
    from rich.console import Console  # only a terminal needs it
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(BAR_WIDTH), TextColumn("{task.description}", markup=False))
    progress = Progress(
        *columns,
        console=Console(file=screen),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    progress.start()
    return progress, progress.add_task("", total=total)
