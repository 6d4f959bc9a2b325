"""How a rank's process ends: at once, with its exit code, whatever its threads wait for."""

import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import NoReturn, TextIO

from torch.distributed.elastic.multiprocessing.errors import record

from configs.process_exit import exit_at_once
from configs.terminal import Tee
from train.supervision.rank_environment import bind_processors, copy_output

AGENT_REPORTS_ERRORS = "SHARDREC_AGENT"
"""Set where ``train.supervision.elastic_agent`` tells the tracebacks of its ranks: they stay silent."""


def run_and_exit(command: Callable[[], int]) -> NoReturn:
    """Run ``command`` and end the process with what it returns, or with 1 after a traceback. Never returns.

    As :func:`exit_at_once` does, whatever the threads of this process wait for.
    """
    copy_output()
    bind_processors()
    sys.excepthook = partial(_failed, sys.stderr)
    code = record(command)()  # leaves the traceback where torchrun looks for it
    exit_at_once(code or 0)


def _failed(shown: TextIO, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Tell the error on ``shown``: torch's process groups put another stream in the place of ``sys.stderr`` here, of
    which nothing would be seen."""
    told = "".join(traceback.format_exception(kind, error, trace))
    if AGENT_REPORTS_ERRORS not in os.environ:
        shown.write(told)
    elif isinstance(shown, Tee):
        shown.write_log(told)
    shown.flush()
    exit_at_once(1)
