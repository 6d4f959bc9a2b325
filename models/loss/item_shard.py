"""The items that one rank scores: its contiguous slice of the catalogue."""

from models.collectives import Collectives


def slice_of(num_items: int, collectives: Collectives) -> range:
    """The items that this rank scores: contiguous, covering the catalogue once over all ranks."""
    size = slice_size(num_items, collectives)
    return range(min(num_items, collectives.rank * size), min(num_items, (collectives.rank + 1) * size))


def slice_size(num_items: int, collectives: Collectives) -> int:
    """Items of the largest slice, which is rank 0's; the last ranks may have fewer, or none."""
    return -(-num_items // collectives.world_size)
