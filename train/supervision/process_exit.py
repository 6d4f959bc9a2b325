"""How a rank's process ends: at once, with its exit code, whatever its threads wait for."""

import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TextIO

from torch.distributed.elastic.multiprocessing.errors import record

from configs.terminal import Tee
from train.supervision.rank_environment import bind_processors, copy_output

AGENT_REPORTS_ERRORS = "SHARDREC_AGENT"
"""Set where ``train.supervision.elastic_agent`` tells the tracebacks of its ranks: they stay silent."""


def run_and_exit(command: Callable[[], int]) -> None:
    """Run ``command`` and end the process with what it returns, or with 1 after a traceback. Never returns.

    The interpreter's own shutdown joins threads, which may wait for ranks that are gone, and native threads of torch
    have been seen to abort it ("terminate called without an active exception").
    """
    copy_output()
    bind_processors()
    sys.excepthook = partial(_failed, sys.stderr)
    code = record(command)()  # leaves the traceback where torchrun looks for it
    _end(code or 0)


def _failed(shown: TextIO, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell the error on ``shown``: torch's process groups put another stream in the place of ``sys.stderr`` here, of
    which nothing would be seen."""
    told = "".join(traceback.format_exception(kind, error, trace))
    if AGENT_REPORTS_ERRORS not in os.environ:
        shown.write(told)
    elif isinstance(shown, Tee):
        shown.write_log(told)
    shown.flush()
    _end(1)


def _end(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
