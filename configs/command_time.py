"""When the command began that a run belongs to: from then on its devices are held. Imports next to nothing."""

import os
import time

_BEGAN_AT = "SHARDREC_BEGAN_AT"
"""Environment variable, in seconds since 1970: the processes of a command know it."""


def set_began(began: float) -> None:
    """This process, and those that it starts, belong to a command of then."""
    os.environ[_BEGAN_AT] = str(began)


def began_or_now() -> float:
    """When this process's command began; now where nobody has said."""
    return float(os.environ.get(_BEGAN_AT, time.time()))


def forget_began() -> None:
    """The command only queued this process, which has waited since."""
    os.environ.pop(_BEGAN_AT, None)
