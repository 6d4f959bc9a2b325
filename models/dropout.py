"""Dropout whose mask is cheap on a CPU: torch's ``bernoulli_`` was a sixth of a SASRec step, random bytes are 1 %."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def dropout(value: Tensor, rate: float) -> Tensor:
    """``value`` with about ``rate`` of its entries set to 0 and the others scaled so that the mean stays.

    On a CPU the rate is rounded to 1/256 and the scale is that of the rounded rate, so the expectation is exact. The
    random numbers follow torch's generator: the same ``torch.manual_seed``, the same mask.
    """
    if rate == 0:
        return value
    if value.device.type != "cpu":
        return functional.dropout(value, rate)
    threshold = max(round(rate * 256), 1)
    seed = int(torch.randint(2**62, (1,)))
    drawn = np.random.Generator(np.random.SFC64(seed)).bytes(value.numel())
    keep = torch.from_numpy(np.frombuffer(drawn, dtype=np.uint8) >= threshold).view(value.shape)
    return value * (keep * (256 / (256 - threshold))).to(value.dtype)


class Dropout(nn.Module):
    """:func:`dropout` while training, nothing otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, value: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return dropout(value, self.rate) if self.training else value
