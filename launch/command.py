"""Starts a module of ours as a process of its own, and waits for it as a shell would."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Where our packages lie."""

REUSE_ALLOCATIONS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""glibc keeps freed memory: on a CPU a fresh large tensor costs more in page faults than the arithmetic on it."""

BOUND_KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
"""oneDNN keeps a kernel for each shape of a bfloat16 product, 1,024 by default. The number of tokens is another
in every step, so they grew by 1.5 MiB a step. (Both names: oneDNN's own cache and torch's in front of it.)"""


def run_module(module: str, arguments: Sequence[str], *, num_threads: int = 0) -> int:
    """Run ``python -m module arguments`` and return its exit code; ``num_threads`` of OpenMP, 0: as it is."""
    environment = module_environment()
    if num_threads:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    command = [sys.executable, "-m", module, *arguments]
    print(f"shardrec: {shlex.join(command[1:])}", file=sys.stderr, flush=True)
    return wait_for(subprocess.Popen(command, env=environment))


def module_environment() -> dict[str, str]:
    """This process's, in which ``-m train`` means our package and not a folder of that name in the working folder."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    packages = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return REUSE_ALLOCATIONS | BOUND_KERNEL_CACHES | os.environ | packages


def wait_for(child: "subprocess.Popen[bytes]") -> int:
    """Wait for ``child``; 128 + n where signal n ended it, as a shell says.

    SIGTERM and SIGUSR1 are handed on. A terminal sends Ctrl-C to the child itself, which then needs time to save: it
    is not killed here.
    """
    handlers = {
        number: signal.signal(number, lambda received, frame: child.send_signal(received))
        for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        code = child.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
