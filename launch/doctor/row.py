"""One row of the doctor's table."""

from dataclasses import dataclass
from enum import Enum


class Mark(str, Enum):
    """How a check ended; a warning does not fail the doctor."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Row:
    """What a check looked at, how it ended, what it found, and the shell lines that mend it (``#``: a remark)."""

    name: str
    mark: Mark
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        assert self.fix or self.mark is Mark.OK, f"{self.name}: what is not well needs a fix"


def good(name: str, found: str) -> Row:
    """A row of a check that passed."""
    return Row(name, Mark.OK, found)


def doubtful(name: str, found: str, fix: str) -> Row:
    """A row of what works here and may not elsewhere."""
    return Row(name, Mark.WARN, found, fix)


def failed(name: str, found: str, fix: str) -> Row:
    """A row of what will stop a run."""
    return Row(name, Mark.FAIL, found, fix)
