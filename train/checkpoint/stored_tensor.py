"""One tensor of a checkpoint on its own, by a process that is no rank."""

from pathlib import Path

import torch
from torch import Tensor

from configs.atomic_files import parse_json_with_sum
from configs.errors import DataError
from train.checkpoint.checksummed_files import damage_of, parse_record
from train.checkpoint.layout import fill, index_of
from train.checkpoint.safetensors_file import DTYPE_NAMES
from train.checkpoint.state_dict import RunTensor
from train.progress import PROGRESS
from train.run_dir.checkpoint_folder import INDEX


def stored_tensor(folder: Path, name: str) -> Tensor:
    """The whole tensor ``name`` of the checkpoint in ``folder``, by the names of :mod:`train.checkpoint.state_dict`.

    Raises :class:`DataError` for a damaged checkpoint, and for one that has no such tensor.
    """
    try:
        record = parse_record((folder / PROGRESS).read_text(encoding="utf-8"), folder / PROGRESS)
        damage = damage_of(folder, record.files, 0, 1, lambda: None)
        index = index_of(parse_json_with_sum((folder / INDEX).read_bytes(), folder / INDEX))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be read: {error}") from error
    if damage:
        raise DataError(f"{folder} is damaged: {', '.join(damage)}")
    if name not in index:
        raise DataError(f"{folder} has no tensor {name}; it has {', '.join(index)}")
    stored = index[name]
    dtype = next(dtype for dtype, known in DTYPE_NAMES.items() if known == stored.dtype)
    whole = torch.empty(stored.shape, dtype=dtype)
    fill([RunTensor(name, stored.shape, dtype, [(whole, (0,) * len(stored.shape))])], index, folder)
    return whole
