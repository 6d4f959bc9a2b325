"""Rows of a table in the number format that they are exported in, and back.

N rows of width D.
"""

from typing import assert_never

import torch
from torch import Tensor

from configs.schema import ExportDtype

MAX_INT8 = 127
MAX_FLOAT16 = 65504.0


def encode_rows(rows: Tensor, dtype: ExportDtype) -> tuple[Tensor, Tensor | None]:
    """``rows`` float32 ``[N, D]`` as they are stored, and for int8 the scale of each row, float32 ``[N]``."""
    match dtype:
        case ExportDtype.FLOAT32:
            return rows.float(), None
        case ExportDtype.FLOAT16:
            return rows.clamp(-MAX_FLOAT16, MAX_FLOAT16).half(), None  # or a large number would become infinite
        case ExportDtype.INT8:
            largest = rows.abs().amax(1)
            scale = torch.where(largest > 0, largest / MAX_INT8, torch.ones_like(largest))
            return (rows / scale[:, None]).round().clamp(-MAX_INT8, MAX_INT8).to(torch.int8), scale
        case _:
            assert_never(dtype)


def decode_rows(stored: Tensor, scale: Tensor | None) -> Tensor:
    """What :func:`encode_rows` returned, as float32 ``[N, D]``."""
    return stored.float() if scale is None else stored.float() * scale[:, None]


def rounded(rows: Tensor, dtype: ExportDtype) -> Tensor:
    """``rows`` ``[N, D]`` as a reader of the export gets them."""
    return decode_rows(*encode_rows(rows, dtype))
