"""Trained baselines without gradients, item-KNN and EASE: a score of each item from the items that a user has had.

Both begin with the Gram matrix G = X'X [V, V], X the users' distinct training items, and score a history with a
matrix made of it. U users of a chunk, V items. Computed in float64 on one process; scores are compared in float32, so
that equal ones are equal in whatever order they were added up.

- Item-KNN (Sarwar et al., WWW 2001): cosine of two items' users, of each item its ``num_neighbours`` nearest alone.
- EASE (Steck, WWW 2019): the least-squares B of X B = X without a diagonal, in closed form: P = (G + l2 I)^-1,
  B = -P / diag(P).
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.machine import GIB, available_memory_gib
from configs.schema import EvaluationConfig, TrainedBaseline
from train.evaluation.shared_users import USERS_AT_ONCE, UserItems, indicator, shared_users

NUM_MATRICES = 3
"""[V, V] of float64 that are there at once: G, what is made of it, and one in between."""
DTYPE = torch.float64


def require_room(config: EvaluationConfig, num_items: int) -> None:
    """Raise :class:`ConfigError` where the matrices of ``config.trained_baselines`` do not fit into this machine."""
    if not config.trained_baselines:
        return
    needed, available = NUM_MATRICES * num_items**2 * 8 / GIB, available_memory_gib()[0]
    if needed > available:
        names = ",".join(name.value for name in config.trained_baselines)
        raise ConfigError(
            f"evaluation.trained_baselines=[{names}] needs {needed:,.1f} GiB for matrices of {num_items:,} x "
            f"{num_items:,} items, and {available:,.1f} GiB are free; leave it out for a catalogue of this size"
        )


class ItemModel:
    """Scores of a user are the sum over the user's items of rows of ``weight`` [V, V]."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def ranks(self, target: np.ndarray, row: np.ndarray, item: np.ndarray, leave_out_seen: bool) -> np.ndarray:
        """[N] 1-based rank of each ``target`` [N] by the distinct seen ``item`` [S] of user ``row`` [S]: half of
        equal scores are ahead; infinite where ``leave_out_seen`` leaves out the target itself."""
        found = []
        for start in range(0, len(target), USERS_AT_ONCE):
            own = slice(*np.searchsorted(row, (start, start + USERS_AT_ONCE)))
            targets = torch.from_numpy(target[start : start + USERS_AT_ONCE])
            found.append(
                self._ranks(targets, torch.from_numpy(row[own] - start), torch.from_numpy(item[own]), leave_out_seen)
            )
        return torch.cat(found).numpy() if found else np.zeros(0)

    def _ranks(self, target: Tensor, row: Tensor, item: Tensor, leave_out_seen: bool) -> Tensor:
        score = torch.sparse.mm(indicator(row, item, len(target), len(self._weight), DTYPE), self._weight).float()
        own = score.gather(1, target[:, None])
        score.scatter_(1, target[:, None], float("-inf"))
        if leave_out_seen:
            score[row, item] = float("-inf")
        rank = 1.0 + (score > own).sum(1) + 0.5 * (score == own).sum(1)
        if leave_out_seen:
            rank[row[item == target[row]]] = float("inf")
        return rank


def fit(config: EvaluationConfig, num_items: int, histories: Iterable[UserItems]) -> dict[str, ItemModel]:
    """Each of ``config.trained_baselines`` by its name; ``histories`` gives chunks: of each distinct training item
    the user's row [S] and the item [S], ascending by both, and the number U of users."""
    if not config.trained_baselines:
        return {}
    gram = shared_users(num_items, histories, DTYPE)
    return {baseline.value: ItemModel(_weight(baseline, gram, config)) for baseline in config.trained_baselines}


def _weight(baseline: TrainedBaseline, gram: Tensor, config: EvaluationConfig) -> Tensor:
    match baseline:
        case TrainedBaseline.ITEM_KNN:
            return _nearest(gram, config.knn_neighbours)
        case TrainedBaseline.EASE:
            return _ease(gram, config.ease_l2)


def _nearest(gram: Tensor, num_neighbours: int) -> Tensor:
    """Cosines [V, V]; column i keeps the ``num_neighbours`` largest that are not i's own, earlier rows first."""
    count = gram.diagonal().clamp(min=1)
    cosine = (gram.square() / (count[:, None] * count)).sqrt()  # of whole numbers: equal ones are equal to the bit
    cosine.fill_diagonal_(0)
    if num_neighbours < len(cosine):
        for column in cosine.t():  # one at a time: a sort of the whole matrix would hold it three times more
            column[torch.sort(column, descending=True, stable=True).indices[num_neighbours:]] = 0
    return cosine


def _ease(gram: Tensor, l2: float) -> Tensor:
    inverse = torch.linalg.inv(gram + l2 * torch.eye(len(gram), dtype=gram.dtype))
    weight = inverse / -inverse.diagonal()
    weight.fill_diagonal_(0)
    return weight
