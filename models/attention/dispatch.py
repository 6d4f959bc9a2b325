"""Causal attention over jagged tokens: one function, and under it what suits the device.

On a GPU fused kernels read jagged histories. On a CPU, and where no kernel suits a head's width or dropout, histories
are padded in buckets of like length.

T tokens in the batch, B histories, H heads, D the width of the model.
"""

import torch
from torch import Tensor

from models.attention.bucketed import (
    MAX_BUCKETS,
    Buckets,
    bucketed_attention,
    bucketed_last_attention,
    bucketed_last_tokens,
    buckets_of,
)
from models.attention.varlen import (
    VarlenLayout,
    supports_varlen,
    varlen_attention,
    varlen_last_attention,
    varlen_layout_of,
)

TRAINING_BUCKETS = 6
"""While training on a CPU, where blocks of queries leave out some of the padding: fewer and larger calls."""

Layout = Buckets | VarlenLayout
"""Where the tokens of a batch lie; made once a batch, used by every block."""


def layout_of(
    lengths: Tensor,
    num_tokens: int,
    *,
    longest: int,
    head_width: int,
    dtype: torch.dtype,
    rate: float,
    is_training: bool,
) -> Layout:
    """The layout of histories of ``lengths`` ``[B]`` that lie one after another, ``num_tokens`` in all.

    None has more than ``longest`` tokens, which is known without a wait for the device; some may be empty. Attention
    will be of projections of ``dtype`` and drop probabilities at ``rate``.
    """
    if supports_varlen(lengths.device, head_width, dtype, rate):
        return varlen_layout_of(lengths, num_tokens, longest)
    is_training_on_cpu = is_training and lengths.device.type == "cpu"
    return buckets_of(lengths, TRAINING_BUCKETS if is_training_on_cpu else MAX_BUCKETS)


def causal_attention(qkv: Tensor, layout: Layout, *, num_heads: int, rate: float) -> Tensor:
    """Self-attention ``[T, D]`` of packed projections ``[T, 3 * D]``, each token over itself and its past.

    ``rate`` is the dropout on attention probabilities.
    """
    match layout:
        case VarlenLayout():
            return varlen_attention(qkv, layout, num_heads=num_heads, rate=rate)
        case Buckets():
            return bucketed_attention(qkv, layout, num_heads=num_heads, rate=rate)


def last_attention(query: Tensor, key_value: Tensor, layout: Layout, *, num_heads: int) -> Tensor:
    """Attention ``[B, D]`` of each history's last token over the whole history; what ranking needs of a last block.

    ``query`` ``[B, D]`` lies in the order of :func:`last_tokens`, ``key_value`` is ``[T, 2 * D]``.
    """
    match layout:
        case VarlenLayout():
            return varlen_last_attention(query, key_value, layout, num_heads=num_heads)
        case Buckets():
            return bucketed_last_attention(query, key_value, layout, num_heads=num_heads)


def last_tokens(layout: Layout) -> Tensor:
    """The index ``[B]`` of each history's last token; none of them is empty."""
    match layout:
        case VarlenLayout():
            return layout.offsets[1:].long() - 1
        case Buckets():
            return bucketed_last_tokens(layout)
