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
    keep = torch.empty_like(value, requires_grad=False, memory_format=torch.contiguous_format)
    dropout_mask_(random_bytes(value.numel()), rate, keep)
    return value * keep.mul_(dropout_scale(rate))


def random_bytes(num: int) -> Tensor:
    """``num`` uniform bytes ``[num]``; they follow torch's generator."""
    seed = int(torch.randint(2**62, (1,)))
    return torch.from_numpy(np.random.SFC64(seed).random_raw(-(-num // 8)).view(np.uint8))[:num]


def dropout_mask_(drawn: Tensor, rate: float, out: Tensor) -> Tensor:
    """``out`` set to 1 where an entry stays and to 0 where it is dropped, from as many ``drawn`` bytes."""
    # Straight into floats: a mask of booleans is slower to make and several times slower to multiply with.
    return torch.ge(drawn.view(out.shape), _threshold(rate), out=out)


def dropout_scale(rate: float) -> float:
    """What the entries that stay are multiplied by."""
    return 256 / (256 - _threshold(rate))


def _threshold(rate: float) -> int:
    return max(round(rate * 256), 1)


class Dropout(nn.Module):
    """:func:`dropout` while training, nothing otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, value: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return dropout(value, self.rate) if self.training else value
