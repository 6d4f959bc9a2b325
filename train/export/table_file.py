"""A table as one safetensors file, written block by block of its rows: never more of it is in memory."""

import json
from pathlib import Path

from torch import Tensor

from configs.schema import ExportDtype
from train.export.rounding import encode_rows

SCALE = "scale"
"""The tensor of an int8 table's scales, float32 ``[rows]``."""
_STORED = {ExportDtype.FLOAT32: ("F32", 4), ExportDtype.FLOAT16: ("F16", 2), ExportDtype.INT8: ("I8", 1)}
"""The name and the bytes of a number, as safetensors has it."""
_SCALE_BYTES = 4


class TableFile:
    """Tensor ``name`` ``[rows, width]`` in the file at ``path``, and for int8 the :data:`SCALE` of its rows."""

    def __init__(self, path: Path, name: str, rows: int, width: int, dtype: ExportDtype) -> None:
        """Makes the file, of its full size. Raises :class:`OSError`."""
        self.path, self._dtype = path, dtype
        stored, size = _STORED[dtype]
        self._row_bytes = width * size
        scale_bytes = rows * _SCALE_BYTES if dtype is ExportDtype.INT8 else 0
        header: dict[str, object] = {}
        if scale_bytes:  # first: four-byte numbers lie at places that four divides
            header[SCALE] = {"dtype": "F32", "shape": [rows], "data_offsets": [0, scale_bytes]}
        end = scale_bytes + rows * self._row_bytes
        header[name] = {"dtype": stored, "shape": [rows, width], "data_offsets": [scale_bytes, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._scales_from = 8 + len(text)
        self._rows_from = self._scales_from + scale_bytes
        with path.open("xb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(self._scales_from + end)

    def write(self, first_row: int, rows: Tensor) -> None:
        """Write float32 ``rows`` from ``first_row`` on. Raises :class:`OSError`."""
        stored, scale = encode_rows(rows.cpu(), self._dtype)
        with self.path.open("r+b") as file:
            file.seek(self._rows_from + first_row * self._row_bytes)
            file.write(stored.contiguous().numpy().data)
            if scale is not None:
                file.seek(self._scales_from + first_row * _SCALE_BYTES)
                file.write(scale.contiguous().numpy().data)
