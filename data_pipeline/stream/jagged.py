"""Rows of several lengths that lie end to end in one array."""

import numpy as np


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Running sums with a leading zero: int64 [B + 1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def jagged_index(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Places ``start, start + 1, ...`` of every row, end to end: int64 [sum of lengths]."""
    offsets = offsets_of(lengths)
    index = np.arange(offsets[-1])
    index += np.repeat(starts - offsets[:-1], lengths)
    return index
