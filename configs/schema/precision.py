"""Number formats of matrix products."""

from enum import Enum


class Precision(str, Enum):
    """Number format of matrix products in training."""

    FP32 = "fp32"
    BF16 = "bf16"
