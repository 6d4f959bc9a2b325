"""What a model asks of the other ranks. `train.distributed` has the real collectives; a single process needs none."""

from typing import Protocol

from torch import Tensor


class Collectives(Protocol):
    """The collectives that a loss over a sharded catalogue needs; ``train.distributed.collectives`` has the real
    ones."""

    rank: int
    world_size: int

    def gather(self, value: Tensor) -> Tensor:
        """``[n_rank, ...]`` of every rank, concatenated in rank order; collective, without gradient."""
        ...

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, in place; collective, without gradient."""
        ...

    def max(self, value: Tensor) -> Tensor:
        """The maximum over ranks, in place; collective, without gradient."""
        ...


class SingleProcess:
    """Collectives of a single process."""

    rank = 0
    world_size = 1

    def gather(self, value: Tensor) -> Tensor:
        """``value`` itself."""
        return value

    def sum(self, value: Tensor) -> Tensor:
        """``value`` itself."""
        return value

    def max(self, value: Tensor) -> Tensor:
        """``value`` itself."""
        return value
