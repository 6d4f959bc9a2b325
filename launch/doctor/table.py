"""The doctor's table for a terminal: aligned, at most 118 columns, commands left in one piece for copying."""

import textwrap

from launch.doctor.row import Mark, Row

WIDTH = 118
NAME_WIDTH = 16
MARK_WIDTH = 6
INDENT = " " * (NAME_WIDTH + MARK_WIDTH)
COLOURS = {Mark.OK: "\033[32m", Mark.WARN: "\033[33m", Mark.FAIL: "\033[31m"}
PLAIN = "\033[0m"


def head() -> str:
    """The line above the rows."""
    return f"{'check':<{NAME_WIDTH}}{'':<{MARK_WIDTH}}found"


def lines_of(row: Row, *, is_coloured: bool) -> list[str]:
    """What was found, wrapped, then the fix: its lines are commands, so they are never broken."""
    mark = f"{row.mark.value:<{MARK_WIDTH}}"
    if is_coloured:
        mark = f"{COLOURS[row.mark]}{mark}{PLAIN}"
    found = textwrap.wrap(row.found, WIDTH - len(INDENT), break_long_words=False, break_on_hyphens=False) or [""]
    first, *more = found
    fix = row.fix.splitlines()
    return [
        f"{row.name:<{NAME_WIDTH}}{mark}{first}",
        *(INDENT + line for line in more),
        *(f"    $ {line}" for line in fix),
    ]
