"""Ranks over a sharded catalogue equal a brute-force NumPy reference, ties included, at any world size."""

import numpy as np
import pytest
import torch

from models.loss.catalogue import slice_of
from ranks import run_ranks
from train.evaluation.ranking import target_ranks
from train.peers import DistributedPeers

NUM_USERS, NUM_ITEMS, WIDTH = 40, 23, 3


def _case() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[int]]]:
    """Small integers: scores are exact in float32 and often equal."""
    random = np.random.default_rng(0)
    query = random.integers(-2, 3, (NUM_USERS, WIDTH))
    item = random.integers(-2, 3, (NUM_ITEMS, WIDTH))
    seen = [random.integers(0, NUM_ITEMS, random.integers(0, 6)).tolist() for _ in range(NUM_USERS)]
    return query, item, random.integers(0, NUM_ITEMS, NUM_USERS), seen


def ranks_here(leave_out_seen: bool) -> list[float]:
    query, item, target, seen = _case()
    peers = DistributedPeers()
    items = slice_of(NUM_ITEMS, peers)
    owner = [user for user, history in enumerate(seen) for _ in history]
    flat = [event for history in seen for event in history]
    found = target_ranks(
        torch.tensor(query, dtype=torch.float32),
        torch.tensor(target),
        torch.tensor(owner),
        torch.tensor(flat),
        torch.tensor(item[items.start : items.stop], dtype=torch.float32),
        items,
        leave_out_seen,
        peers,
    )
    return found.tolist()


def _brute_force(leave_out_seen: bool) -> list[float]:
    query, item, target, seen = _case()
    ranks = []
    for user, wanted in enumerate(target):
        left_out = set(seen[user]) if leave_out_seen else set()
        if wanted in left_out:
            ranks.append(float("inf"))
            continue
        others = [other for other in range(NUM_ITEMS) if other != wanted and other not in left_out]
        score = item @ query[user]
        ahead = sum(score[other] > score[wanted] for other in others)
        ranks.append(1 + ahead + 0.5 * sum(score[other] == score[wanted] for other in others))
    return ranks


@pytest.mark.parametrize("leave_out_seen", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_equal_brute_force_on_every_rank(world_size: int, leave_out_seen: bool):
    expected = _brute_force(leave_out_seen)
    assert run_ranks(world_size, ranks_here, leave_out_seen) == [expected] * world_size
