"""What users weigh in a step: tokens or sequences, from the lengths of all histories alone."""

import numpy as np

from data_pipeline.stream.jagged import offsets_of
from data_pipeline.stream.sequences import WeightFn

BLOCK_USERS = 1024
"""Users whose sum is held in memory; the lengths themselves may stay on disk."""
BLOCKS_AT_A_TIME = 1024


class CumulativeWeights:
    """Running sums of the users' weights, in user order; a *offset* is a place on that scale."""

    def __init__(self, lengths: np.ndarray, weigh: WeightFn, target: int) -> None:
        """``lengths``: training events of every user, int [B], may be mapped; ``target``: weight of a batch."""
        self._lengths, self._weigh, self.target = lengths, weigh, target
        sums = [np.zeros(0, np.int64)]
        for start in range(0, len(lengths), BLOCK_USERS * BLOCKS_AT_A_TIME):
            weights = weigh(np.asarray(lengths[start : start + BLOCK_USERS * BLOCKS_AT_A_TIME]))
            sums.append(np.add.reduceat(weights, np.arange(0, len(weights), BLOCK_USERS)))
        self._running = offsets_of(np.concatenate(sums))
        self.total = int(self._running[-1])

    def weight_before(self, user: int) -> int:
        """Weight of all users before ``user``."""
        block, within = divmod(user, BLOCK_USERS)
        if not within:
            return int(self._running[block])
        return int(self._running[block]) + int(self._block(block)[:within].sum())

    def user_at_offset(self, offset: int) -> int:
        """The first user before which users weigh at least ``offset``."""
        block = max(int(np.searchsorted(self._running, offset)) - 1, 0)
        within = offsets_of(self._block(block))
        return block * BLOCK_USERS + int(np.searchsorted(within, offset - self._running[block]))

    def _block(self, block: int) -> np.ndarray:
        return self._weigh(np.asarray(self._lengths[block * BLOCK_USERS : (block + 1) * BLOCK_USERS]))
