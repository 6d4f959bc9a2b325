"""Arithmetic of training: FLOP of the steps by the encoder's own count, and the rate that a device reaches at most.

B histories, L the longest of them.
"""

import time

import torch
from torch import Tensor

from configs.schema import EncoderConfig, FullSoftmaxConfig, HardwareConfig, LossConfig, SampledConfig, UserInput
from configs.schema.model import AttentionConfig, Masking
from configs.schema.precision import Precision
from data_pipeline.batch import SequenceBatch
from models.encoders.encoder import Encoder

FORWARD_AND_BACKWARD = 3
"""A product has two gradients, each as large as itself."""
SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the square product that stands for a device's largest rate."""
NUM_PRODUCTS = 5
TERA = 1e12


class FlopCounter:
    """FLOP of this rank's share of the steps: products of encoder and loss, forward and backward, without padding.

    Two a multiply-add. Look-ups, norms and optimizers are left out, as is usual for a model's FLOP.
    """

    def __init__(self, encoder: Encoder, model: EncoderConfig, loss: LossConfig, num_items: int) -> None:
        """``num_items``: that training knows."""
        self._encoder, self._model = encoder, model
        self._head_flop = 2.0 * model.embedding_dim * num_candidates(loss, num_items)
        self._lengths: list[Tensor] = []
        is_narrow = isinstance(model, AttentionConfig) and model.precision is Precision.BF16
        self.dtype = torch.bfloat16 if is_narrow else torch.float32
        """Of the encoder's products."""

    def count(self, batch: SequenceBatch) -> None:
        """Count a step on ``batch``, which is in this machine's memory; the arithmetic is done by :meth:`take`."""
        self._lengths.append(batch.lengths)

    def take(self) -> float:
        """FLOP of the steps that were counted since the last call."""
        if not self._lengths:
            return 0.0
        lengths = torch.cat(self._lengths)
        self._lengths = []
        return FORWARD_AND_BACKWARD * (self._of_encoder(lengths) + self._of_head(lengths))

    def _of_encoder(self, lengths: Tensor) -> float:
        if self._model.masking is None:  # the last event is a target alone
            lengths = (lengths - 1).clamp(min=0)
        if self._model.user_input is UserInput.FIRST_TOKEN:
            lengths = lengths + 1
        lengths = lengths[lengths > 0]
        if not len(lengths):
            return 0.0
        flop = self._encoder.flop(lengths)
        return (flop.linear + flop.attention) * int(lengths.sum())

    def _of_head(self, lengths: Tensor) -> float:
        masking = self._model.masking
        if masking is None:
            return self._head_flop * int((lengths - 1).clamp(min=0).sum())
        return self._head_flop * float(_num_hidden(lengths[lengths > 0].double(), masking).sum())


def num_candidates(loss: LossConfig, num_items: int) -> int:
    """Items that a prediction is scored against."""
    if isinstance(loss, SampledConfig):
        return 1 + loss.num_negatives + loss.in_batch_negatives  # the target is one
    return num_items if isinstance(loss, FullSoftmaxConfig) else 1


def _num_hidden(lengths: Tensor, masking: Masking) -> Tensor:
    """Events that are expected to be hidden of histories of ``lengths`` ``[B]``, at least one of each."""
    drawn = masking.fraction * lengths + (1 - masking.fraction) ** lengths
    return masking.last_fraction + (1 - masking.last_fraction) * drawn


def largest_flop_per_s(hardware: HardwareConfig, device: torch.device, dtype: torch.dtype) -> float:
    """The FLOP/s of ``hardware.peak_tflops_per_device``; where it is 0, the best of some large square products of
    ``dtype`` that are done now. No random number is drawn."""
    if hardware.peak_tflops_per_device:
        return hardware.peak_tflops_per_device * TERA
    size = SIZE[device.type]
    left, out = torch.full((2, size, size), 0.5, device=device, dtype=dtype)
    best = min(_seconds_of_product(left, out) for _ in range(NUM_PRODUCTS))
    return 2.0 * size**3 / best


def _seconds_of_product(left: Tensor, out: Tensor) -> float:
    _wait(left.device)
    began_s = time.perf_counter()
    torch.mm(left, left, out=out)
    _wait(left.device)
    return max(time.perf_counter() - began_s, 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
