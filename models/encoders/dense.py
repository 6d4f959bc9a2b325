"""Encoders as programs for export take them: padded histories, one query each, no choice that hangs on the data.

B histories, L the longest of them, D the width of the model. A run reads jagged histories instead: see ``sasrec``.
"""

from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.encoders.sasrec import Block, SASRec


def dense_encoder(encoder: SASRec) -> nn.Module:
    """The dense form of ``encoder``, which shares its weights: tokens ``[B, L, D]``, lengths ``[B]`` to ``[B, D]``.

    Adding an encoder: its dense form and a case here.
    """
    match encoder:
        case SASRec():
            return DenseSASRec(encoder)
        case _:
            assert_never(encoder)


class DenseSASRec(nn.Module):
    """:meth:`SASRec.last` over histories that are padded at their end; what the padding holds changes nothing."""

    def __init__(self, encoder: SASRec) -> None:
        super().__init__()
        self.position, self.norm = encoder.position, encoder.norm
        blocks = [DenseBlock(block) for block in encoder.blocks if isinstance(block, Block)]
        self.blocks, self.final = nn.ModuleList(blocks[:-1]), blocks[-1]

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The query after the last token of each history; ``lengths`` are from 1 to L."""
        hidden = tokens + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            hidden = block(hidden)
        queries: Tensor = self.norm(self.final.last(hidden, lengths))
        return queries


class DenseBlock(nn.Module):
    """A block of SASRec without dropout."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.num_heads = block.num_heads
        self.attention_norm, self.qkv, self.project = block.attention_norm, block.qkv, block.project
        self.feed_forward_norm = block.feed_forward_norm
        self.widen, self.activation, _, self.narrow = block.feed_forward

    def forward(self, tokens: Tensor) -> Tensor:
        """``[B, L, D]`` to ``[B, L, D]``. No mask for the padding: no token looks at what comes after it."""
        query, key, value = self.qkv(self.attention_norm(tokens)).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            self._heads(query), self._heads(key), self._heads(value), is_causal=True
        )
        return self._fed_forward(tokens + self.project(mixed.transpose(1, 2).flatten(2)))

    def last(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """``[B, L, D]`` to the last token of each history ``[B, D]``."""
        width = tokens.shape[2]
        weight, bias = self.qkv.weight, self.qkv.bias
        normed = self.attention_norm(tokens)
        place = (lengths - 1)[:, None, None].expand(-1, 1, width)
        query = functional.linear(normed.gather(1, place), weight[:width], bias[:width])
        key, value = functional.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
        is_token = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        mixed = functional.scaled_dot_product_attention(
            self._heads(query), self._heads(key), self._heads(value), attn_mask=is_token[:, None, None]
        )
        last = tokens.gather(1, place) + self.project(mixed.transpose(1, 2).flatten(2))
        return self._fed_forward(last)[:, 0]

    def _fed_forward(self, tokens: Tensor) -> Tensor:
        fed: Tensor = self.narrow(self.activation(self.widen(self.feed_forward_norm(tokens))))
        return tokens + fed

    def _heads(self, value: Tensor) -> Tensor:
        """``[B, L, D]`` to ``[B, H, L, D / H]``."""
        return value.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
