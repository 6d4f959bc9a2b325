"""What crosses from a recommender to its loss.

N predictions, C candidates, D the width of the model.
"""

from typing import NamedTuple

from torch import Tensor


class LossInputs(NamedTuple):
    """What a loss needs: a query, its target, and the vectors to score against.

    A tuple: DDP does not find the tensors inside a dataclass and would silently leave the gradients unreduced.
    """

    query: Tensor
    """``[N, D]``"""
    target: Tensor
    """Item ids ``[N]``."""
    target_vector: Tensor
    """``[N, D]``"""
    candidate_vector: Tensor
    """``[C, D]``, rows of the same table."""
    offset: Tensor | None = None
    """``[N]``, added to each prediction's score of every item, where the model has such a part."""
    label: Tensor | None = None
    """``[N]``, the number to be predicted of each event, where there is one."""
