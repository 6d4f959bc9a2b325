"""Keeps where each target of a ranking stands, on rank 0.

B queries of all ranks, N targets of a subset.
"""

import numpy as np
import torch
from torch import Tensor

from train.evaluation.ranking import Queries, Ranked
from train.evaluation.user_ranks import RankedTargets


class TargetRecorder:
    """An ``on_ranked`` of :func:`train.evaluation.ranking.rank_targets`; other ranks keep nothing."""

    def __init__(self, rank: int, max_targets: int | None = None) -> None:
        """``rank`` of this process. Of more than ``max_targets`` nothing is kept."""
        self._is_recording, self._max_targets = rank == 0, max_targets
        self._parts: list[tuple[np.ndarray, ...]] = []
        self._num_targets = 0

    def __call__(self, queries: Queries, ranked: Ranked, item_vector: Tensor) -> None:
        """Keep a batch."""
        if not self._is_recording:
            return
        self._num_targets += len(queries.target)
        if self._max_targets is not None and self._num_targets > self._max_targets:
            self._is_recording = False
            self._parts.clear()
            return
        user, target, length = queries.as_stored.unbind(1)
        columns = (user, target, ranked.rank, ranked.score, ranked.is_seen, length.int())
        self._parts.append(tuple(column.cpu().numpy() for column in columns))

    def add_unranked(self, as_stored: Tensor) -> None:
        """Keep targets, as of :class:`Queries`, that a model cannot rank: misses without a score."""
        if not self._is_recording:
            return
        user, target, length = as_stored.cpu().unbind(1)
        rank = torch.full(user.shape, torch.inf, dtype=torch.float64)
        columns = (user, target, rank, rank.float().neg(), torch.zeros_like(user).bool(), length.int())
        self._parts.append(tuple(column.numpy() for column in columns))

    def targets(self) -> RankedTargets | None:
        """Those that were ranked, by user; None on other ranks than 0, and where there were too many."""
        if not self._is_recording:
            return None
        none = [torch.zeros(0, dtype=kind).numpy() for kind in KINDS]
        columns = [np.concatenate(each) for each in zip(none, *self._parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return RankedTargets(*(column[order] for column in columns))


KINDS = (torch.int64, torch.int64, torch.float64, torch.float32, torch.bool, torch.int32)
"""Of the columns of :class:`RankedTargets`, in their order."""
