"""A moving average of all weights (Polyak & Juditsky, 1992): often a better model than the last step's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from configs.flatten import flat
from train.sharding import local_shards

BLOCK_ROWS = 2**16
"""Rows that are exchanged at once: a second copy of a table's shard may not fit."""


class WeightAverage:
    """Of this rank's shards and the dense part: as much memory as they take.

    The decay grows with the step to ``decay``, as (1 + step) / (10 + step): the first weights are soon forgotten.
    """

    def __init__(self, model: DistributedModelParallel, decay: float) -> None:
        """Begins with the weights that ``model`` has."""
        self._decay = decay
        self._weights: dict[str, list[Tensor]] = {}
        for name, weight in flat(model.state_dict()):
            parts = [part.detach() for part, _ in local_shards(weight)]
            if weight.dtype.is_floating_point:
                self._weights[name] = [part for part in parts if part.numel()]
        self.parts = {name: [part.clone() for part in parts] for name, parts in self._weights.items()}
        """The average of each weight by its name, in the parts that this rank holds."""

    def restart(self) -> None:
        """The weights were replaced: the average begins with them."""
        for weight, average in self._pairs():
            average.copy_(weight)

    def update(self, step: int) -> None:
        """Take in the weights after ``step``, counted from 0."""
        share = 1 - min(self._decay, (1 + step) / (10 + step))
        for weight, average in self._pairs():
            average.lerp_(weight, share)

    def adopt(self) -> None:
        """The model becomes its average, which is the end of its training."""
        for weight, average in self._pairs():
            weight.copy_(average)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model is its average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for weight, average in self._pairs():
            for ours, theirs in zip(weight.split(BLOCK_ROWS), average.split(BLOCK_ROWS), strict=True):
                kept = ours.clone()
                ours.copy_(theirs)
                theirs.copy_(kept)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        for name, weights in self._weights.items():
            yield from zip(weights, self.parts[name], strict=True)
