"""One tensor of a checkpoint on its own, by a process that is no rank."""

from pathlib import Path

import torch
from torch import Tensor

from configs.errors import DataError
from train.checkpoint.checksummed_files import damage_of, parse_record
from train.checkpoint.layout import fill
from train.checkpoint.reader import read_index
from train.checkpoint.safetensors_file import DTYPE_NAMES
from train.checkpoint.state_dict import RunTensor
from train.progress import PROGRESS
from train.run_dir.checkpoint_folder import INDEX


def stored_tensor(folder: Path, name: str) -> Tensor:
    """The whole tensor ``name`` of the checkpoint in ``folder``, by the names of :mod:`train.checkpoint.state_dict`.

    Raises :class:`DataError` for a damaged checkpoint, and for one that has no such tensor.
    """
    try:
        record = parse_record(
            (folder / PROGRESS).read_text(encoding="utf-8", errors="surrogateescape"), folder / PROGRESS
        )
        damage = damage_of(folder, record.files, 0, 1, lambda: None)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}") from error
    if damage:
        raise DataError(f"{folder} is damaged: {', '.join(damage)}")
    index, problem = read_index(folder / INDEX, record.files, folder / INDEX)
    if problem:
        raise DataError(problem)
    if name not in index:
        raise DataError(f"{folder} has no tensor {name}; it has {', '.join(index)}")
    stored = index[name]
    dtype = next(dtype for dtype, known in DTYPE_NAMES.items() if known == stored.dtype)
    whole = torch.empty(stored.shape, dtype=dtype)
    fill([RunTensor(name, stored.shape, dtype, [(whole, (0,) * len(stored.shape))])], index, folder)
    return whole
