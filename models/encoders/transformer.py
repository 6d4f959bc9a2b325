"""Softmax attention over jagged tokens, block by block, with learned positions; a block says how it joins its parts.

T tokens in the batch, B histories, L the longest of some, D the width of the model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema import Precision
from configs.schema.model import AttentionConfig
from models.attention.bucketed import Buckets, padded_attention
from models.attention.dispatch import Layout, causal_attention, last_attention, last_tokens, layout_of
from models.dropout import Dropout
from models.encoders.encoder import EncoderFlop, Times, mean_attended


class AttentionBlock(nn.Module, ABC):
    """Attention behind a layer norm; :meth:`joined` says what becomes of it."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.num_heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.dropout = Dropout(config.dropout)

    @abstractmethod
    def joined(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """What leaves the block, of what entered it and of the heads' ``mixed`` values, ``[..., D]`` each."""

    def products(self) -> list[tuple[int, int]]:
        """Inner and outer width of each of its matrix products."""
        layers = [module for module in self.modules() if isinstance(module, nn.Linear)]
        return [(layer.in_features, layer.out_features) for layer in layers]

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """``[T, D]`` to ``[T, D]``."""
        rate = self.attention_dropout if self.training else 0.0
        qkv = self.qkv(self.attention_norm(tokens))
        return self.joined(tokens, causal_attention(qkv, layout, num_heads=self.num_heads, rate=rate))

    def last(self, tokens: Tensor, layout: Layout) -> Tensor:
        """``[T, D]`` to the last token of each history ``[B, D]``, in the order of ``last_tokens``."""
        width = tokens.shape[1]
        normed, last = self.attention_norm(tokens), last_tokens(layout)
        weight, bias = self.qkv.weight, self.qkv.bias
        query = functional.linear(normed[last], weight[:width], bias[:width])
        key_value = functional.linear(normed, weight[width:], bias[width:])
        return self.joined(tokens[last], last_attention(query, key_value, layout, num_heads=self.num_heads))

    def bucket(self, tokens: Tensor) -> Tensor:
        """``[b, L, D]`` to the same, each row a history; what lies behind its end is not looked at."""
        packed = self.qkv(self.attention_norm(tokens)).view(*tokens.shape[:2], 3, self.num_heads, -1)
        mixed = padded_attention(packed, self.attention_dropout if self.training else 0.0)
        return self.joined(tokens, mixed.reshape(tokens.shape))

    def bucket_last(self, tokens: Tensor, last: Tensor) -> Tensor:
        """``[b, L, D]`` to the token at ``last`` ``[b]`` of each row ``[b, D]``.

        Neither keys nor values are made of the tokens. A head's product of a query with a key is that of the query,
        brought back through the key's weights, with the token; its bias adds the same to all tokens, which a softmax
        does not see. The mean of values is the value of the mean token.
        """
        (num_histories, longest, width), heads = tokens.shape, self.num_heads
        row = torch.arange(num_histories, device=tokens.device)
        normed, (weight, bias) = self.attention_norm(tokens), (self.qkv.weight, self.qkv.bias)
        query = functional.linear(normed[row, last], weight[:width], bias[:width]).unflatten(1, (heads, -1))
        key_weight, value_weight = weight[width:].view(2, heads, -1, width)
        asked = torch.einsum("bhd,hdw->bhw", query, key_weight) * (width // heads) ** -0.5
        score = asked @ normed.transpose(1, 2)
        is_token = torch.arange(longest, device=tokens.device) <= last[:, None]
        share = score.masked_fill(~is_token[:, None], -torch.inf).softmax(-1)
        mixed = torch.einsum("bhw,hdw->bhd", share @ normed, value_weight).flatten(1)
        return self.joined(tokens[row, last], mixed + bias[2 * width :])

    def dense(self, tokens: Tensor) -> Tensor:
        """``[B, L, D]`` to ``[B, L, D]``, as a program can hold it. No mask for the padding: no token looks at what
        comes after it."""
        query, key, value = self.qkv(self.attention_norm(tokens)).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(
            self._heads(query), self._heads(key), self._heads(value), is_causal=True
        )
        return self.joined(tokens, mixed.transpose(1, 2).flatten(2))

    def _heads(self, value: Tensor) -> Tensor:
        """``[B, L, D]`` to ``[B, H, L, D / H]``."""
        return value.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Transformer(nn.Module):
    """Blocks of one kind over vectors and learned positions, and a norm at the end. An :class:`Encoder`."""

    is_causal = True
    reads_time = False

    def __init__(self, config: AttentionConfig, max_tokens: int, block: Callable[[Any], AttentionBlock]) -> None:
        """``max_tokens``: the longest history it will see, a first user token included."""
        super().__init__()
        self.precision = config.precision
        self.head_width = config.embedding_dim // config.num_heads
        self.attention_dropout = config.attention_dropout
        self.position = nn.Embedding(max_tokens, config.embedding_dim)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(block(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.embedding_dim)
        self._initialise(config.initial_std)

    def layout_of(self, lengths: Tensor, num_tokens: int) -> Layout:
        """The layout of histories of ``lengths`` ``[B]``, ``num_tokens`` in all, that :meth:`forward` takes."""
        return layout_of(
            lengths,
            num_tokens,
            longest=self.position.num_embeddings,
            head_width=self.head_width,
            dtype=torch.bfloat16 if self._is_narrow else torch.float32,
            rate=self.attention_dropout if self.training else 0.0,
            is_training=self.training,
        )

    def forward(self, tokens: Tensor, layout: Layout, times: Times | None = None) -> Tensor:
        """Vectors ``[T, D]`` to the queries ``[T, D]`` that are scored against the catalogue."""
        hidden = self.dropout(tokens + self.position(layout.position))
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self._is_narrow):
            for block in self.blocks:
                hidden = block(hidden, layout)
        return self.norm(hidden)

    def last(self, tokens: Tensor, layout: Layout, times: Times | None = None) -> Tensor:
        """The query after the last event of each history ``[B, D]``, in their order; none of them is empty.

        The last block computes one token a history: attention probabilities are not dropped, so for ranking alone.
        """
        blocks, final = self._blocks()
        if isinstance(layout, Buckets):
            last = torch.cat([tokens[:0], *(self._bucket_last(tokens, index) for index in layout.buckets)])
        else:
            hidden = self.dropout(tokens + self.position(layout.position))
            for block in blocks:
                hidden = block(hidden, layout)
            last = final.last(hidden, layout)
        return self.norm(last)[torch.argsort(last_tokens(layout))]

    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """:meth:`last` over histories that are padded at their end, as a program can hold it."""
        blocks, final = self._blocks()
        hidden = tokens + self.position.weight[: tokens.shape[1]]
        for block in blocks:
            hidden = block.dense(hidden)
        queries: Tensor = self.norm(final.bucket_last(hidden, lengths - 1))
        return queries

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """Of a token: each block's products, and two products with each token that it looks at."""
        blocks, final = self._blocks()
        products = [each for block in (*blocks, final) for each in block.products()]
        return EncoderFlop(
            tuple(products), 4.0 * len(self.blocks) * self.position.embedding_dim * mean_attended(lengths)
        )

    def _bucket_last(self, tokens: Tensor, index: Tensor) -> Tensor:
        """``[b, D]`` of histories of like length, through all blocks while they are in the processor's cache."""
        blocks, final = self._blocks()
        hidden = tokens.index_select(0, index.view(-1)).view(*index.shape, -1)
        hidden = self.dropout(hidden + self.position.weight[: index.shape[1]])
        for block in blocks:
            hidden = block.bucket(hidden)
        return final.bucket_last(hidden, index[:, -1] - index[:, 0])

    def _blocks(self) -> tuple[list[AttentionBlock], AttentionBlock]:
        """All but the last, and the last."""
        *blocks, final = (block for block in self.blocks if isinstance(block, AttentionBlock))
        return blocks, final

    @property
    def _is_narrow(self) -> bool:
        return self.training and self.precision is Precision.BF16

    def _initialise(self, std: float) -> None:
        nn.init.normal_(self.position.weight, std=std)
        initialise_products(self)


def initialise_products(encoder: nn.Module) -> None:
    """Draw the weights of all linear layers below ``encoder``, in their order; biases are zero."""
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
