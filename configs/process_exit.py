"""How a process that has loaded torch ends: with its exit code, and without the interpreter's own shutdown."""

import os
import sys
from typing import NoReturn


def exit_at_once(code: int) -> NoReturn:
    """End this process with ``code`` when what it printed is written.

    The interpreter's shutdown joins threads, which may wait for ranks that are gone, and native threads of torch have
    been seen to abort it with exit code 134 ("terminate called without an active exception"). So nothing may be left
    for ``atexit`` to do.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
