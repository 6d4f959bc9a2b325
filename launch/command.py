"""Starts a module of ours as a process of its own, and waits for it as a shell would."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType

from configs.errors import require
from configs.lifeline import tie_when_started, tied_environment
from configs.process_environment import module_environment

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP}
"""What training answers by saving, once it can. SIGHUP only where it is not ignored, as ``nohup`` has it."""


def is_ignored(number: signal.Signals) -> bool:
    """Whether whoever started this process wants signal ``number`` to pass it by."""
    return signal.getsignal(number) is signal.SIG_IGN


def hold_stop_signals() -> None:
    """Keep :data:`STOP_SIGNALS` waiting, in this process and those it starts, until each is ready to answer them.

    A warning that comes while torch is being imported would otherwise kill the process instead of making it save.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def run_module(module: str, arguments: Sequence[str], *, num_threads: int = 0, is_training: bool = False) -> int:
    """Run ``python -m module arguments`` and return its exit code; ``num_threads`` of OpenMP, 0: as it is.

    ``is_training``: the module answers stop signals by saving, so they wait until it can.
    """
    environment = module_environment(os.environ)
    _check_polars_threads(environment)
    if num_threads:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    print(f"shardrec: {shlex.join(['-m', module, *arguments])}", file=sys.stderr, flush=True)
    if is_training:
        hold_stop_signals()
    command = [sys.executable, "-m", "configs.start", module, *arguments]
    return wait_for(subprocess.Popen(command, env=tied_environment(environment), preexec_fn=tie_when_started()))


def _check_polars_threads(environment: Mapping[str, str]) -> None:
    """Polars would say it in its own words, in the middle of reading a log, which is then called unreadable."""
    threads = environment.get("POLARS_MAX_THREADS", "1")
    require(
        threads.isdecimal() and int(threads) > 0,
        f"the environment variable POLARS_MAX_THREADS={threads} must be a whole number above 0; set it, or unset it",
    )


def wait_for(child: "subprocess.Popen[bytes]") -> int:
    """Wait for ``child``; 128 + n where signal n ended it, as a shell says.

    SIGTERM, SIGUSR1 and SIGHUP are handed on, the first that comes and no more. A terminal sends Ctrl-C to the child
    itself, which needs time to save: it is not killed here. What ``nohup`` lets us ignore stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread answer signals
        code = child.wait()
        return 128 - code if code < 0 else code
    handed_on: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        if not handed_on:
            handed_on.append(number)
            child.send_signal(number)

    handed = [signal.SIGTERM, signal.SIGUSR1, *([] if is_ignored(signal.SIGHUP) else [signal.SIGHUP])]
    handlers = {number: signal.signal(number, hand_on) for number in handed}
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    try:
        code = child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
