"""SASRec on jagged tokens: pre-norm causal Transformer blocks with learned positions.

T tokens in the batch, B histories, D the width of the model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema import Precision, SASRecConfig
from models.attention.bucketed import Buckets, padded_attention
from models.attention.dispatch import Layout, causal_attention, last_attention, last_tokens, layout_of
from models.dropout import Dropout


class Block(nn.Module):
    """Attention and feed-forward, each behind a layer norm and beside a residual path."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        width = config.embedding_dim
        self.num_heads = config.num_heads
        self.attention_dropout = config.attention_dropout
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.feed_forward_dim),
            nn.GELU(),
            Dropout(config.dropout),
            nn.Linear(config.feed_forward_dim, width),
        )
        self.dropout = Dropout(config.dropout)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """``[T, D]`` to ``[T, D]``."""
        rate = self.attention_dropout if self.training else 0.0
        qkv = self.qkv(self.attention_norm(tokens))
        mixed = causal_attention(qkv, layout, num_heads=self.num_heads, rate=rate)
        tokens = tokens + self.dropout(self.project(mixed))
        return self._fed_forward(tokens)

    def last(self, tokens: Tensor, layout: Layout) -> Tensor:
        """``[T, D]`` to the last token of each history ``[B, D]``, in the order of ``last_tokens``."""
        width = tokens.shape[1]
        normed, last = self.attention_norm(tokens), last_tokens(layout)
        weight, bias = self.qkv.weight, self.qkv.bias
        query = functional.linear(normed[last], weight[:width], bias[:width])
        key_value = functional.linear(normed, weight[width:], bias[width:])
        mixed = last_attention(query, key_value, layout, num_heads=self.num_heads)
        return self._fed_forward(tokens[last] + self.dropout(self.project(mixed)))

    def padded(self, tokens: Tensor) -> Tensor:
        """``[b, L, D]`` to the same, each row a history; what lies behind its end is not looked at."""
        packed = self.qkv(self.attention_norm(tokens)).view(*tokens.shape[:2], 3, self.num_heads, -1)
        mixed = padded_attention(packed, self.attention_dropout if self.training else 0.0)
        return self._fed_forward(tokens + self.dropout(self.project(mixed.reshape(tokens.shape))))

    def padded_last(self, tokens: Tensor, last: Tensor) -> Tensor:
        """``[b, L, D]`` to the token at ``last`` ``[b]`` of each row ``[b, D]``.

        Neither keys nor values are made of the tokens. A head's product of a query with a key is that of the query,
        brought back through the key's weights, with the token; its bias adds the same to all tokens, which a softmax
        does not see. The mean of values is the value of the mean token.
        """
        (num_histories, longest, width), heads = tokens.shape, self.num_heads
        row = torch.arange(num_histories, device=tokens.device)
        normed, (weight, bias) = self.attention_norm(tokens), (self.qkv.weight, self.qkv.bias)
        query = functional.linear(normed[row, last], weight[:width], bias[:width]).view(num_histories, heads, -1)
        key_weight, value_weight = weight[width:].view(2, heads, -1, width)
        asked = torch.einsum("bhd,hdw->bhw", query, key_weight) * (width // heads) ** -0.5
        score = asked @ normed.transpose(1, 2)
        is_token = torch.arange(longest, device=tokens.device) <= last[:, None]
        share = score.masked_fill(~is_token[:, None], -torch.inf).softmax(-1)
        mixed = torch.einsum("bhw,hdw->bhd", share @ normed, value_weight).reshape(num_histories, width)
        mixed = mixed + bias[2 * width :]
        return self._fed_forward(tokens[row, last] + self.dropout(self.project(mixed)))

    def _fed_forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))


class SASRec(nn.Module):
    """Self-attentive sequential recommendation (Kang & McAuley, 2018), with pre-norm blocks and GELU."""

    def __init__(self, config: SASRecConfig, max_tokens: int) -> None:
        """``max_tokens``: the longest history it will see, a first user token included."""
        super().__init__()
        self.precision = config.precision
        self.head_width = config.embedding_dim // config.num_heads
        self.attention_dropout = config.attention_dropout
        self.position = nn.Embedding(max_tokens, config.embedding_dim)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
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

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        """Item vectors ``[T, D]`` to the queries ``[T, D]`` that are scored against the catalogue."""
        hidden = self.dropout(tokens + self.position(layout.position))
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self._is_narrow):
            for block in self.blocks:
                hidden = block(hidden, layout)
        return self.norm(hidden)

    def last(self, tokens: Tensor, layout: Layout) -> Tensor:
        """The query after the last event of each history ``[B, D]``, in their order; none of them is empty.

        The last block computes one token a history: attention probabilities are not dropped, so for ranking alone.
        """
        *blocks, final = self.blocks
        assert isinstance(final, Block), "blocks are built above"
        if isinstance(layout, Buckets):
            last = torch.cat([tokens[:0], *(self._bucket_last(tokens, index) for index in layout.buckets)])
        else:
            hidden = self.dropout(tokens + self.position(layout.position))
            for block in blocks:
                hidden = block(hidden, layout)
            last = final.last(hidden, layout)
        return self.norm(last)[torch.argsort(last_tokens(layout))]

    def _bucket_last(self, tokens: Tensor, index: Tensor) -> Tensor:
        """``[b, D]`` of histories of like length, through all blocks while they are in the processor's cache."""
        *blocks, final = self.blocks
        assert isinstance(final, Block), "blocks are built above"
        hidden = tokens.index_select(0, index.view(-1)).view(*index.shape, -1)
        hidden = self.dropout(hidden + self.position.weight[: index.shape[1]])
        for block in blocks:
            assert isinstance(block, Block), "blocks are built above"
            hidden = block.padded(hidden)
        return final.padded_last(hidden, index[:, -1] - index[:, 0])

    @property
    def _is_narrow(self) -> bool:
        return self.training and self.precision is Precision.BF16

    def _initialise(self, std: float) -> None:
        nn.init.normal_(self.position.weight, std=std)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)
