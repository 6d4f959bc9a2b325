"""Safetensors files: written past the page cache and summed on the way, read by the slice.

The format (a length, a JSON header, bytes) runs nothing when it is read, and any tool of the field opens it.
"""

import io
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from train.checkpoint.direct_io import DirectFile

DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""As the format spells them."""
_ALIGNMENT = 8
"""The header is padded to it, so that a mapped file's values begin where a processor reads them at once."""


def write_tensors(path: Path, tensors: dict[str, Tensor], heartbeat: Callable[[], None]) -> tuple[int, str]:
    """Write ``tensors`` to ``path``; its size and its XXH3-64 in hexadecimal.

    ``heartbeat`` is called after every block. Raises :class:`OSError`.
    """
    file = DirectFile(path, heartbeat)
    with io.BufferedWriter(file) as stream:
        stream.write(_header(tensors))
        for tensor in tensors.values():
            # a view: the bytes go straight into the blocks that are written
            stream.write(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        stream.flush()
        os.fsync(file.fileno())
    return file.size, file.sum()


class TensorFiles:
    """The files of one folder, each opened when it is first asked for. A context."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._files: dict[str, Any] = {}

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, file: str, name: str, part: tuple[slice, ...]) -> Tensor:
        """The ``part`` of tensor ``name``, one slice a dim; no more of the file is read."""
        if file not in self._files:
            self._files[file] = self._stack.enter_context(safe_open(self._folder / file, framework="pt"))
        opened = self._files[file]
        found: Tensor = opened.get_slice(name)[part] if part else opened.get_tensor(name)
        return found


def _header(tensors: dict[str, Tensor]) -> bytes:
    end, entries = 0, {}
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
