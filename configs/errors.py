"""The two errors that a person can mend, a wrong choice and a wrong file, and how a command ends with them."""

import errno
import os
import re
import sys
from collections.abc import Callable

USAGE_EXIT_CODE = 2
"""What every command returns for an error that a person can mend."""

REQUEUE_EXIT_CODE = 75
"""What training returns after it was stopped and has saved: start it again (EX_TEMPFAIL of sysexits.h)."""

NODES_MISSING_EXIT_CODE = 68
"""What a node returns when the other nodes of its job are not there yet: start it again (EX_NOHOST of sysexits.h)."""

HUNG_EXIT_CODE = 69
"""What every rank returns when one of them hung and that was told (EX_UNAVAILABLE of sysexits.h)."""

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""What an ``OSError`` says where there is no room, or none for this user: room helps, and nothing is broken."""

_LONG_WORD = re.compile(r"(\S{100})\S{81,}(\S{20})")


class ConfigError(ValueError):
    """A key of the run's configuration is wrong; the message names the key, its value and what to do.

    A value of more than 200 characters is shortened in it: the line must stay one that a person reads.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_LONG_WORD.sub(r"\1...\2", message))


class NodesMissingError(ConfigError):
    """Nodes of a job have not met in time. Unlike a wrong key it may pass by itself, so it has its own exit code."""


class DataError(ValueError):
    """A log or a store is wrong; the message names the file, the place in it and what to do."""


class ToldByRankZero(ConfigError):
    """What rank 0 raised as well, and tells: a second line of it is for the logs of other machines alone."""


def exit_code_of(command: Callable[[], int | None]) -> int:
    """Run ``command``: its own exit code (none is 0), or 2 after one line on stderr for what a person can mend.

    68 where it is that other nodes are missing (:class:`NodesMissingError`).

    Every rank prints its own line and says which it is: only the rank that reads a broken file knows of it.
    """
    try:
        _require_folder()
        return command() or 0
    except (ConfigError, DataError) as error:
        if isinstance(error, ToldByRankZero) and os.environ.get("LOCAL_RANK") != "0":
            return USAGE_EXIT_CODE
        rank = os.environ.get("RANK")
        where = f"rank {rank}: " if rank not in (None, "0") else ""
        print(f"{where}{_in_red(_kind_of(error))}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return NODES_MISSING_EXIT_CODE if isinstance(error, NodesMissingError) else USAGE_EXIT_CODE


def _require_folder() -> None:
    """Hydra and every relative path need it, and would say so by a traceback."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError("the current folder was deleted; change to one that exists, then start again") from error


def _kind_of(error: ConfigError | DataError) -> str:
    """A person has two kinds to tell apart; ours may have finer ones."""
    return "ConfigError" if isinstance(error, ConfigError) else "DataError"


def _in_red(word: str) -> str:
    """``word`` as it is shown on a terminal, unless NO_COLOR or TERM=dumb asks for none."""
    if not sys.stderr.isatty():
        return word
    from rich.console import Console  # only a terminal needs it

    console = Console(file=sys.stderr)
    with console.capture() as shown:
        console.print(word, style="bold red", end="", highlight=False, markup=False)
    return shown.get()


def require(condition: bool, message: str) -> None:
    """Raise :class:`ConfigError` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConfigError(message)
