"""Attention to both sides over padded histories.

B histories, L the longest of them, H heads, d the width of a head.
"""

import torch
from torch import Tensor
from torch.nn import functional

from models.dropout import dropout


def two_sided_attention(query: Tensor, key: Tensor, value: Tensor, is_token: Tensor, rate: float) -> Tensor:
    """``[B, H, L, d]`` each to the same; every place looks at the tokens ``is_token`` ``[B, L]``, never at padding.

    ``rate`` is the dropout on attention probabilities.
    """
    is_seen = is_token[:, None, None]
    if rate == 0 or query.device.type != "cpu":
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=is_seen, dropout_p=rate)
    score = (query * query.shape[-1] ** -0.5) @ key.mT  # torch draws a mask on a CPU slowly: models/dropout.py
    share = score.masked_fill(~is_seen, -torch.inf).softmax(-1)
    return dropout(share, rate) @ value
