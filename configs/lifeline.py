"""A process ends with the one that started it, also where that one was killed: nothing of a job outlives its command.

Two ways at once. The kernel kills the child when the thread that started it dies (Linux). And a thread of the child
asks every second whether its parent is still the one that started it; that holds where the kernel has no such signal.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

STARTER = "SHARDREC_STARTER"
"""In the environment of a process that shall end with the one of this id."""
_PR_SET_PDEATHSIG = 1
_ASK_S = 1.0
_THREAD = "lifeline"


def tied_environment(environment: dict[str, str]) -> dict[str, str]:
    """``environment`` for a process that this one starts, and that calls :func:`end_with_starter`."""
    return environment | {STARTER: str(os.getpid())}


def tie_when_started() -> Callable[[], None]:
    """What ``subprocess.Popen`` shall call in the child, as ``preexec_fn``: from then on the child ends with this
    process, whatever program it becomes. For a process without other threads, and from its main thread."""
    starter, prctl = os.getpid(), _prctl()

    def tie() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != starter:  # it died before the kernel was asked
            os._exit(128 + signal.SIGKILL)

    return tie


def end_with_starter() -> None:
    """End this process, at once and with SIGKILL, when the one that started it is gone.

    Only where that one asked for it by :func:`tied_environment`, or is torchrun's agent. To be called before anything
    that takes long is imported.
    """
    told = os.environ.pop(STARTER, "")  # not for the processes that this one starts
    starter = int(told) if told else os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else 0
    if not starter:
        return
    if (prctl := _prctl()) is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != starter:
        os._exit(128 + signal.SIGKILL)
    if not any(thread.name == _THREAD for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(starter,), name=_THREAD, daemon=True).start()


def _watch(starter: int) -> None:
    while os.getppid() == starter:
        time.sleep(_ASK_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _prctl() -> Callable[[int, int], int] | None:
    """The system call; None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    call: Callable[[int, int], int] = ctypes.CDLL(None, use_errno=True).prctl
    return call
