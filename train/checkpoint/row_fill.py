"""Rows of a stored table into a table that numbers them otherwise, has more of them, or fewer.

R rows stored, r rows of a part that this rank holds.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs.errors import DataError
from train.checkpoint.layout import Index, StoredPart, fill, misfit
from train.checkpoint.safetensors_file import TensorFiles
from train.checkpoint.state_dict import Offset, RunTensor

RowMaps = Mapping[str, np.ndarray]
"""By table, for each stored row [R] the row that it becomes, -1 for none: int64. No row comes from two."""
ROWS_AT_ONCE = 65_536


def table_of(name: str) -> str:
    """The table whose rows the tensor ``name`` has, empty for one of the dense part and for a count of steps."""
    parts = name.split(".")
    if ".tables.embeddings." in f".{name}":
        return parts[-2]
    is_state = name.startswith("optimizer.table.") and parts[-1] != "step"
    return parts[-2] if is_state else ""


def misfit_but_rows(tensors: list[RunTensor], index: Index) -> list[str]:
    """As :func:`misfit`, with any number of rows in tables."""
    found = []
    for tensor in tensors:
        stored = index.get(tensor.name)
        if stored is None or not table_of(tensor.name) or stored.shape[1:] != tensor.shape[1:]:
            found += misfit([tensor], index)
    return found


def fill_rows(tensors: list[RunTensor], index: Index, folder: Path, rows: RowMaps) -> None:
    """Read what this rank holds of ``tensors`` out of the files in ``folder``, in place; rows that no stored row
    becomes stay as they are. Raises :class:`DataError` where the files lack a value."""
    fill([tensor for tensor in tensors if not table_of(tensor.name)], index, folder)
    with TensorFiles(folder) as files:
        for tensor in tensors:
            if table := table_of(tensor.name):
                for part, place in tensor.parts:
                    _fill_part(part, place, tensor.name, index, rows[table], files)


def _fill_part(part: Tensor, place: Offset, name: str, index: Index, rows: np.ndarray, files: TensorFiles) -> None:
    num_found = sum(_fill_from(stored, part, place, rows, files) for stored in index[name].parts)
    num_rows = int(((rows >= place[0]) & (rows < place[0] + len(part))).sum())
    expected = num_rows * math.prod(part.shape[1:])
    if num_found != expected:
        raise DataError(f"the checkpoint has {num_found} of {expected} values of {name} at {place}")


def _fill_from(stored: StoredPart, part: Tensor, place: Offset, rows: np.ndarray, files: TensorFiles) -> int:
    """Copy what ``stored`` has of ``part``, a stretch of rows at a time; how many values."""
    there, here = _columns(stored, part, place)
    if there is None or here is None:
        return 0
    num_values = 0
    for start in range(0, stored.shape[0], ROWS_AT_ONCE):
        end = min(start + ROWS_AT_ONCE, stored.shape[0])
        becomes = rows[stored.offset[0] + start : stored.offset[0] + end]
        wanted = np.flatnonzero((becomes >= place[0]) & (becomes < place[0] + len(part)))
        if not wanted.size:
            continue
        values = files.read(stored.file, stored.key, (slice(start, end), *there))[torch.from_numpy(wanted)]
        target = torch.from_numpy(becomes[wanted] - place[0]).to(part.device)
        part[(target, *here)] = values.to(part.device)  # type: ignore[index]
        num_values += values.numel()
    return num_values


def _columns(
    stored: StoredPart, part: Tensor, place: Offset
) -> tuple[tuple[slice, ...] | None, tuple[slice, ...] | None]:
    """The dims but the first that both have: in ``stored`` and in ``part``; None where they share no column."""
    there, here = [], []
    for a, size, b, length in zip(stored.offset[1:], stored.shape[1:], place[1:], part.shape[1:], strict=True):
        begin, end = max(a, b), min(a + size, b + length)
        if begin >= end:
            return None, None
        there.append(slice(begin - a, end - a))
        here.append(slice(begin - b, end - b))
    return tuple(there), tuple(here)
