"""Which rank writes which part of a checkpoint, and where a part of a tensor is found in its files."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from configs.errors import DataError
from train.checkpoint.safetensors_file import DTYPE_NAMES, TensorFiles
from train.checkpoint.state_dict import Offset, RunTensor

PartKey = tuple[str, Offset]


@dataclass(slots=True)
class StoredPart:
    """A part of a tensor as it lies in a file."""

    file: str
    key: str
    offset: Offset
    shape: tuple[int, ...]


@dataclass(slots=True)
class StoredTensor:
    """A tensor as it lies in the files of a checkpoint."""

    dtype: str
    shape: tuple[int, ...]
    parts: list[StoredPart]


Index = dict[str, StoredTensor]
"""By the names of :mod:`train.checkpoint.state_dict`."""


def file_of(rank: int) -> str:
    """The file that ``rank`` writes."""
    return f"rank-{rank:05d}.safetensors"


def share_parts(tensors: list[RunTensor], group: dist.ProcessGroup) -> tuple[set[PartKey], dict[str, Any]]:
    """The parts that this rank writes, and on rank 0 the index of all as JSON. Collective.

    What several ranks hold is written by the one of them that has the least to write.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    own = [
        (tensor.name, place, tuple(part.shape), part.numel() * part.element_size())
        for tensor, part, place in _parts_of(tensors)
    ]
    headers = {tensor.name: (DTYPE_NAMES[tensor.dtype], tensor.shape) for tensor in tensors}
    # One rank alone learns of all parts: on the others nothing grows with the number of ranks.
    gathered: list[Any] | None = [None] * world_size if rank == 0 else None
    dist.gather_object((headers, own), gathered, dst=0, group=group)
    shares: list[Any] = [None] * world_size
    document: dict[str, Any] = {}
    if gathered is not None:
        shares, document = _assigned(gathered)
    received: list[Any] = [None]
    dist.scatter_object_list(received, shares if rank == 0 else None, src=0, group=group)
    return received[0], document


def index_of(document: dict[str, Any]) -> Index:
    """The index that :func:`share_parts` made, read again. Raises :class:`KeyError` and the like where it is none."""
    return {
        name: StoredTensor(
            entry["dtype"],
            tuple(entry["shape"]),
            [
                StoredPart(
                    part["file"], key_of(name, tuple(part["offset"])), tuple(part["offset"]), tuple(part["shape"])
                )
                for part in entry["parts"]
            ],
        )
        for name, entry in document["tensors"].items()
    }


def key_of(name: str, offset: Offset) -> str:
    """The name of a part in its file: the tensor's own where the part begins it."""
    return f"{name}@{','.join(map(str, offset))}" if any(offset) else name


def misfit(tensors: list[RunTensor], index: Index) -> list[str]:
    """Why ``tensors`` cannot be loaded from ``index``: each names a tensor and the two shapes."""
    found = []
    for tensor in tensors:
        stored = index.get(tensor.name)
        if stored is None:
            found.append(f"{tensor.name} is not in it")
        elif stored.shape != tensor.shape:
            found.append(f"{tensor.name} is {list(stored.shape)} in it and {list(tensor.shape)} in this model")
    return found


def fill(tensors: list[RunTensor], index: Index, folder: Path) -> None:
    """Read the parts of ``tensors`` that this rank holds out of the files in ``folder``, in place.

    Raises :class:`DataError` where the files hold no value for a part.
    """
    with TensorFiles(folder) as files:
        for tensor, part, place in _parts_of(tensors):
            num_found = sum(_fill_from(stored, part, place, files) for stored in index[tensor.name].parts)
            if num_found != part.numel():
                raise DataError(f"{folder} has {num_found} of the {part.numel()} values of {tensor.name} at {place}")


def _parts_of(tensors: list[RunTensor]) -> Iterator[tuple[RunTensor, Tensor, Offset]]:
    for tensor in tensors:
        for part, place in tensor.parts:
            yield tensor, part, place


def _fill_from(stored: StoredPart, part: Tensor, place: Offset, files: TensorFiles) -> int:
    """Copy what ``stored`` has of ``part``; how many values."""
    begins = [max(a, b) for a, b in zip(stored.offset, place, strict=True)]
    ends = [
        min(a + size, b + length)
        for a, size, b, length in zip(stored.offset, stored.shape, place, part.shape, strict=True)
    ]
    if any(begin >= end for begin, end in zip(begins, ends, strict=True)):
        return 0
    there = tuple(slice(b - a, e - a) for b, e, a in zip(begins, ends, stored.offset, strict=True))
    here = tuple(slice(b - a, e - a) for b, e, a in zip(begins, ends, place, strict=True))
    part[here].copy_(files.read(stored.file, stored.key, there))
    return math.prod(end - begin for begin, end in zip(begins, ends, strict=True))


def _assigned(gathered: list[Any]) -> tuple[list[set[PartKey]], dict[str, Any]]:
    """On rank 0: the parts of each rank, and the index."""
    holders: dict[PartKey, list[int]] = {}
    sizes: dict[PartKey, tuple[tuple[int, ...], int]] = {}
    headers: dict[str, Any] = {}
    for rank, (described, own) in enumerate(gathered):
        headers.update(described)
        for name, place, shape, num_bytes in own:
            holders.setdefault((name, place), []).append(rank)
            sizes[name, place] = (shape, num_bytes)
    loads = [0] * len(gathered)
    shares: list[set[PartKey]] = [set() for _ in gathered]
    entries: dict[str, Any] = {
        name: {"dtype": dtype, "shape": shape, "parts": []} for name, (dtype, shape) in sorted(headers.items())
    }
    # First what one rank alone holds, then what many do, the largest first: shares come out alike.
    for key in sorted(holders, key=lambda key: (len(holders[key]) > 1, -sizes[key][1], key)):
        writer = min(holders[key], key=lambda rank: (loads[rank], rank))
        loads[writer] += sizes[key][1]
        shares[writer].add(key)
        entries[key[0]]["parts"].append({"file": file_of(writer), "offset": key[1], "shape": sizes[key][0]})
    return shares, {"tensors": entries}
