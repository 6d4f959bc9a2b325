"""How many users two items share: the Gram matrix X'X of the users' distinct items X.

U users of a chunk, S pairs of a user and an item, V items.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

USERS_AT_ONCE = 512
UserItems = tuple[np.ndarray, np.ndarray, int]
"""Users and items of distinct pairs [S], ascending by user, and the number U of users."""


def shared_users(num_items: int, histories: Iterable[UserItems], dtype: torch.dtype) -> Tensor:
    """Whole numbers ``[V, V]`` of ``dtype``; on the diagonal the users of each item."""
    gram = torch.zeros(num_items, num_items, dtype=dtype)
    for row, item, num_users in histories:
        for start in range(0, num_users, USERS_AT_ONCE):
            own = slice(*np.searchsorted(row, (start, start + USERS_AT_ONCE)))
            rows, items = torch.from_numpy(row[own] - start), torch.from_numpy(item[own])
            dense = torch.zeros(USERS_AT_ONCE, num_items, dtype=dtype)
            dense[rows, items] = 1
            gram += torch.sparse.mm(indicator(items, rows, num_items, USERS_AT_ONCE, dtype), dense)
    return gram


def indicator(row: Tensor, column: Tensor, num_rows: int, num_columns: int, dtype: torch.dtype) -> Tensor:
    """Sparse, 1 at each pair of ``row`` and ``column``."""
    ones = torch.ones(len(row), dtype=dtype)
    return torch.sparse_coo_tensor(torch.stack([row, column]), ones, (num_rows, num_columns), check_invariants=False)
