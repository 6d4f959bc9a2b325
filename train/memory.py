"""Memory that was freed, back to the system."""

import ctypes
from contextlib import suppress


def return_freed_memory() -> None:
    """Give back every page without a tensor on it, where the C library can (glibc); elsewhere do nothing.

    A job keeps what it frees (``launch.command.REUSE_ALLOCATIONS``), which is what makes steps fast; but tensors of
    other sizes do not fit into the gaps of those before them. Between training and ranking most of the gaps are of no
    more use: kept, they grew a run of 48 epochs by half a gigabyte a rank.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
