"""The catalogue as one rank sees it: its slice of the rows, and what must be combined over ranks."""

from typing import Protocol

from torch import Tensor


class Peers(Protocol):
    """The collectives that a loss over a sharded catalogue needs; ``train.peers`` has the real ones."""

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


class Alone:
    """Peers of a single process."""

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


def slice_of(num_items: int, peers: Peers) -> range:
    """The items that this rank scores: contiguous, covering the catalogue once over all ranks."""
    size = slice_size(num_items, peers)
    return range(min(num_items, peers.rank * size), min(num_items, (peers.rank + 1) * size))


def slice_size(num_items: int, peers: Peers) -> int:
    """Items of the largest slice, which is rank 0's; the last ranks may have fewer, or none."""
    return -(-num_items // peers.world_size)
