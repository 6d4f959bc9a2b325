"""eSASRec: SASRec with LiGR blocks, whose parts pass a gate before they join the residual path, and a SwiGLU.

The gate reads what enters a part, before its norm: with it deep stacks train that otherwise collapse.
D is the width of the model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema.model import ESASRecConfig
from models.encoders.transformer import AttentionBlock, Transformer


class SwiGLU(nn.Module):
    """A feed-forward part of three products without biases (Shazeer, 2020)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner_width, bias=False)
        self.widen = nn.Linear(width, inner_width, bias=False)
        self.narrow = nn.Linear(inner_width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., D]`` to the same."""
        narrowed: Tensor = self.narrow(functional.silu(self.gate(tokens)) * self.widen(tokens))
        return narrowed


class LiGRBlock(AttentionBlock):
    """x + sigmoid(W x + b) * part(norm(x)), for attention and then for the feed-forward part."""

    def __init__(self, config: ESASRecConfig) -> None:
        super().__init__(config)
        width = config.embedding_dim
        self.attention_gate = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = SwiGLU(width, config.feed_forward_dim)
        self.feed_forward_gate = nn.Linear(width, width)

    def joined(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Both parts pass their gates, ``[..., D]``."""
        gate = torch.sigmoid(self.attention_gate(tokens))
        tokens = tokens + gate * self.dropout(self.project(mixed))
        gate = torch.sigmoid(self.feed_forward_gate(tokens))
        return tokens + gate * self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))


class ESASRec(Transformer):
    """eSASRec (Tikhonovich et al., RecSys 2025): the blocks; its loss and its data are chosen apart."""

    def __init__(self, config: ESASRecConfig, max_tokens: int) -> None:
        """``max_tokens``: the longest history it will see, a first user token included."""
        super().__init__(config, max_tokens, LiGRBlock)
