"""The environment of a process of ours, whoever starts it."""

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Where our packages lie."""

REUSE_ALLOCATIONS = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**32)}
"""glibc keeps freed memory: on a CPU a fresh large tensor costs more in page faults than the arithmetic on it."""

SPIN_BRIEFLY = {"GOMP_SPINCOUNT": "2000"}
"""Threads of OpenMP (GNU's, which torch brings) wait for each other by spinning, 300,000 rounds by default. Beside
other work on the same cores they spin while the one they wait for cannot run: two threads beside one busy process
trained at less than a quarter of their own rate. With 2,000 rounds they train almost twice as fast then, and where
they are alone as fast as before, to a few per cent."""

BOUND_KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}
"""oneDNN keeps a kernel for each shape of a bfloat16 product, 1,024 by default. The number of tokens is another
in every step, so they grew by 1.5 MiB a step. (Both names: oneDNN's own cache and torch's in front of it.)"""


def module_environment(own: Mapping[str, str]) -> dict[str, str]:
    """``own`` with what our processes need; in it ``-m train`` is our package and not a folder of that name."""
    paths = [str(ROOT), *filter(None, [own.get("PYTHONPATH")])]
    packages = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return {**REUSE_ALLOCATIONS, **SPIN_BRIEFLY, **BOUND_KERNEL_CACHES, **own, **packages}
