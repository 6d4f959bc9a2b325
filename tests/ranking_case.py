"""Users to rank with scores that are exact in float32, and what a brute-force NumPy ranking says of them."""

import numpy as np
import torch

from models.loss.item_shard import slice_of
from train.distributed.collectives import ProcessGroupCollectives
from train.evaluation.ranking import Queries, target_ranks

NUM_USERS, NUM_ITEMS, WIDTH = 40, 23, 3


def ranks_here(leave_out_seen: bool, device: str = "cpu") -> list[float]:
    """The rank of every user's target, on the process group that is there. Collective."""
    query, item, target, seen = _case()
    collectives = ProcessGroupCollectives()
    items = slice_of(NUM_ITEMS, collectives)
    owner = [user for user, history in enumerate(seen) for _ in history]
    flat = [event for history in seen for event in history]
    queries = Queries(
        query=torch.tensor(query, dtype=torch.float32, device=device),
        target=torch.tensor(target, device=device),
        as_stored=torch.zeros(NUM_USERS, 3, dtype=torch.int64, device=device),
        owner=torch.tensor(owner, device=device),
        seen=torch.tensor(flat, device=device),
    )
    vectors = torch.tensor(item[items.start : items.stop], dtype=torch.float32, device=device)
    found = target_ranks(queries, vectors, items, leave_out_seen, collectives)
    return found.rank.tolist()


def brute_force_ranks(leave_out_seen: bool) -> list[float]:
    """The same by sorting nothing: every other item is looked at."""
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


def _case() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[int]]]:
    """Small integers: scores are exact in float32 and often equal."""
    random = np.random.default_rng(0)
    query = random.integers(-2, 3, (NUM_USERS, WIDTH))
    item = random.integers(-2, 3, (NUM_ITEMS, WIDTH))
    seen = [random.integers(0, NUM_ITEMS, random.integers(0, 6)).tolist() for _ in range(NUM_USERS)]
    return query, item, random.integers(0, NUM_ITEMS, NUM_USERS), seen
