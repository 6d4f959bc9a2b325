"""Causal attention over jagged tokens on a GPU: fused kernels that are told where each history begins; no padding.

bfloat16 takes FlashAttention (Dao, 2023), float32 the memory-efficient kernel (Rabe & Staats, 2021). They are called
by the names under which autograd knows them: nested tensors, torch's public way to them, took 8 ms where these take
.3 (``shardrec bench attention``, ``benchmarks/results/attention_h200.json``).

The memory-efficient kernel must not drop probabilities here: with jagged histories its backward draws another mask
than its forward (torch 2.11), and training diverges without a word. ``tests/gpu`` holds every path to its mask.

T tokens in the batch, B histories, H heads, d the width of a head, D = H * d.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WIDEST_HEAD = 128
"""Wider ones were not tried."""
HEAD_MULTIPLE = 8
FLASH_CAPABILITY = (8, 0)
"""Of the oldest card that FlashAttention runs on."""

NO_MASK, CAUSAL = 0, 1
"""How the memory-efficient kernel numbers its masks; causal counts from the first key."""


@dataclass(frozen=True, slots=True)
class VarlenLayout:
    """Where each history begins; made once, used by every block, without a wait for the device."""

    offsets: Tensor
    """int32 ``[B + 1]``: first token of each history, and the end."""
    position: Tensor
    """``[T]``: place of each token inside its own history, from 0."""
    longest: int
    """No history has more tokens; kernels size their grid by it."""


def supports_varlen(device: torch.device, head_width: int, dtype: torch.dtype, rate: float) -> bool:
    """Whether the kernels run on ``device`` with heads of ``head_width``, and are right at dropout ``rate``."""
    if device.type != "cuda" or head_width % HEAD_MULTIPLE or head_width > WIDEST_HEAD:
        return False
    if dtype is torch.float32:
        return rate == 0
    return torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY


def varlen_layout_of(lengths: Tensor, num_tokens: int, longest: int) -> VarlenLayout:
    """The layout of histories of ``lengths`` ``[B]``, none above ``longest``, ``num_tokens`` in all."""
    ends = torch.cumsum(lengths, 0)
    first = torch.repeat_interleave(ends - lengths, lengths, output_size=num_tokens)
    position = torch.arange(num_tokens, device=lengths.device) - first
    return VarlenLayout(torch.nn.functional.pad(ends, (1, 0)).int(), position, min(longest, num_tokens))


def varlen_attention(qkv: Tensor, layout: VarlenLayout, *, num_heads: int, rate: float) -> Tensor:
    """Self-attention ``[T, D]`` of packed projections ``[T, 3 * D]``, each token over itself and its past."""
    num_tokens, width = len(qkv), qkv.shape[1] // 3
    if not num_tokens:
        return qkv[:, :width]
    query, key, value = qkv.view(num_tokens, 3, num_heads, -1).unbind(1)
    offsets, longest = layout.offsets, layout.longest
    if qkv.dtype is torch.float32:
        assert rate == 0, "the backward of this kernel does not know the mask of its forward"
        mixed = _efficient(query, key, value, offsets, offsets, longest, longest, CAUSAL)
    else:
        flash = torch.ops.aten._flash_attention_forward
        mixed = flash(query, key, value, offsets, offsets, longest, longest, rate, True, False)[0]
    return mixed.reshape(num_tokens, width)


def varlen_last_attention(query: Tensor, key_value: Tensor, layout: VarlenLayout, *, num_heads: int) -> Tensor:
    """Attention ``[B, D]`` of each history's last token over the whole history; float32.

    ``query`` ``[B, D]`` lies in the order of the histories, ``key_value`` is ``[T, 2 * D]``.
    """
    num_histories, width = query.shape
    if not num_histories:
        return query
    key, value = key_value.view(len(key_value), 2, num_heads, -1).unbind(1)
    query = query.view(num_histories, num_heads, -1)
    one_each = torch.arange(num_histories + 1, dtype=torch.int32, device=query.device)
    mixed = _efficient(query, key, value, one_each, layout.offsets, 1, layout.longest, NO_MASK)
    return mixed.reshape(num_histories, width)


def _efficient(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_offsets: Tensor,
    key_offsets: Tensor,
    longest_query: int,
    longest_key: int,
    mask: int,
) -> Tensor:
    """``[Tq, H, d]`` of queries ``[Tq, H, d]`` over keys and values ``[T, H, d]``."""
    mixed: Tensor = torch.ops.aten._efficient_attention_forward(
        query[None],
        key[None],
        value[None],
        None,
        query_offsets,
        key_offsets,
        longest_query,
        longest_key,
        0.0,
        mask,
        compute_log_sumexp=True,
    )[0][0]
    return mixed
