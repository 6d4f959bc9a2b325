"""Attention as a textbook writes it, a history at a time."""

import torch
from torch import Tensor


def textbook_attention(qkv: Tensor, num_heads: int) -> Tensor:
    """Causal attention ``[L, D]`` of one history's packed projections ``[L, 3 * D]``."""
    length, width = len(qkv), qkv.shape[1] // 3
    query, key, value = qkv.view(length, 3, num_heads, width // num_heads).permute(1, 2, 0, 3)
    return (textbook_probabilities(query, key) @ value).transpose(0, 1).reshape(length, width)


def textbook_probabilities(query: Tensor, key: Tensor) -> Tensor:
    """``[..., L, L]`` of queries and keys ``[..., L, d]``; nobody looks ahead."""
    score = query @ key.mT / query.shape[-1] ** 0.5
    return torch.softmax(score.masked_fill(torch.ones_like(score).triu(1).bool(), float("-inf")), -1)
