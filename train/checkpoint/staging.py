"""Copies of a run's tensors that a save is written from while training changes the tensors themselves."""

import torch
from torch import Tensor

from train.checkpoint.layout import PartKey, key_of
from train.checkpoint.state_dict import RunTensor


class Stage:
    """Memory on the CPU, pinned beside a GPU, that is taken once and kept for the next save."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def copy(self, tensors: list[RunTensor], wanted: set[PartKey]) -> dict[str, Tensor]:
        """The ``wanted`` parts of ``tensors`` as they are now, by their names in a file."""
        found = {}
        for key, part in parts_of(tensors, wanted).items():
            kept = self._kept.get(key)
            if kept is None or kept.shape != part.shape or kept.dtype != part.dtype:
                kept = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
                self._kept[key] = kept
            found[key] = kept.copy_(part, non_blocking=part.is_cuda)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the copies are read by another thread
        return found


def parts_of(tensors: list[RunTensor], wanted: set[PartKey]) -> dict[str, Tensor]:
    """The ``wanted`` parts of ``tensors`` themselves, by their names in a file."""
    return {
        key_of(tensor.name, place): part
        for tensor in tensors
        for part, place in tensor.parts
        if (tensor.name, place) in wanted
    }
