"""What a model asks of the other ranks. `train.distributed` has the real collectives; a single process needs none."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor


def nothing() -> None:
    """What is left to wait for where nothing is under way."""


class Collectives(Protocol):
    """The collectives that a loss over a sharded catalogue needs; ``train.distributed.collectives`` has the real
    ones."""

    rank: int
    world_size: int

    def gather(self, value: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """``[n_rank, ...]`` of every rank, concatenated in rank order; collective, without gradient.

        ``sizes`` are the ``n_rank`` where they are known, which saves a collective and a wait for the device.
        """
        ...

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, in place; collective, without gradient."""
        ...

    def begin_sum(self, value: Tensor) -> Callable[[], object]:
        """Begin :meth:`sum`; ``value`` is the sum once the result has been called. Collective."""
        ...

    def begin_sum_of_own_rows(self, value: Tensor, sizes: Sequence[int]) -> Callable[[], Tensor]:
        """Begin the sum over ranks of this rank's rows, which the result gives: of ``value`` ``[N, ...]`` the first
        ``sizes[0]`` are those of rank 0, and so on. ``value`` must not change meanwhile. Collective."""
        ...

    def max(self, value: Tensor) -> Tensor:
        """The maximum over ranks, in place; collective, without gradient."""
        ...


class SingleProcess:
    """Collectives of a single process."""

    rank = 0
    world_size = 1

    def gather(self, value: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """``value`` itself."""
        return value

    def sum(self, value: Tensor) -> Tensor:
        """``value`` itself."""
        return value

    def begin_sum(self, value: Tensor) -> Callable[[], object]:
        """``value`` is the sum already."""
        return nothing

    def begin_sum_of_own_rows(self, value: Tensor, sizes: Sequence[int]) -> Callable[[], Tensor]:
        """All rows are its own."""
        return lambda: value

    def max(self, value: Tensor) -> Tensor:
        """``value`` itself."""
        return value
