"""What a long prepare tells while it works: rows, rows a second, and the time that is left."""

import time
from collections.abc import Callable

QUIET_S = 3.0
"""A line at most this often, and none for what ends sooner."""
LIVE_S = 0.2
"""The same for a line that takes the place of the last one."""


class ProgressReporter:
    """Counts rows through the stages of a prepare and tells of them.

    ``tell`` is given one line at a time; ``show``, where there is one, lines that take the place of each other, with
    the rows that are done and all rows.
    """

    def __init__(
        self,
        tell: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        show: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._tell, self._clock, self._show = tell, clock, show
        self._name, self._num_rows, self._done, self._skipped = "", 0, 0, 0
        self._start = self._described = clock()

    def begin(self, name: str, num_rows: int, skipped: int = 0) -> None:
        """A stage of ``num_rows`` begins, or goes on after the ``skipped`` rows of a prepare that was ended."""
        self._name, self._num_rows, self._done, self._skipped = name, num_rows, skipped, skipped
        self._start = self._clock()
        if skipped:
            self.say(f"{name} continues after {skipped:,} rows of a prepare that was ended")

    def advance(self, num_rows: int) -> None:
        """``num_rows`` more are done."""
        self._done += num_rows
        now = self._clock()
        if now - self._described < (QUIET_S if self._show is None else LIVE_S):
            return
        self._described = now
        rate = (self._done - self._skipped) / max(now - self._start, 1e-9)
        left = max(self._num_rows - self._done, 0) / max(rate, 1e-9)
        line = f"{self._name}: {self._done:,} of {self._num_rows:,} rows, {rate:,.0f} rows/s, {left:,.0f} s left"
        if self._show is None:
            self.say(line)
        else:
            self._show(line, self._done, self._num_rows)

    def say(self, line: str) -> None:
        """Tell ``line`` now."""
        if self._tell is not None:
            self._tell(line)
