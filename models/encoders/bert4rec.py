"""BERT4Rec: attention to both sides, trained to find hidden events (Sun et al., CIKM 2019), with pre-norm blocks.

T tokens in the batch, N of them hidden, b histories, L the longest of them, D the width of the model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.schema import Precision
from configs.schema.model import BERT4RecConfig
from models.attention.bucketed import Buckets, over_buckets
from models.attention.dispatch import Layout
from models.attention.two_sided import two_sided_attention
from models.dropout import Dropout
from models.encoders.encoder import EncoderFlop, Times
from models.encoders.padded import BucketedEncoder
from models.encoders.sasrec import Block
from models.encoders.transformer import initialise_products


class TwoSidedBlock(Block):
    """A block of SASRec whose tokens look at later ones, too."""

    def two_sided(self, tokens: Tensor, is_token: Tensor) -> Tensor:
        """``[b, L, D]`` to the same; padding, which is not ``is_token`` ``[b, L]``, reaches no token."""
        packed = self.qkv(self.attention_norm(tokens)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        rate = self.attention_dropout if self.training else 0.0
        mixed = two_sided_attention(query, key, value, is_token, rate)
        return self.joined(tokens, mixed.transpose(1, 2).flatten(2))


class BERT4Rec(BucketedEncoder):
    """One learned vector stands in the place of what is to be found: of hidden events in training, and of the next
    event in ranking. Always that vector: hidden events are neither kept nor replaced by others."""

    is_causal = False

    def __init__(self, config: BERT4RecConfig, max_tokens: int) -> None:
        """``max_tokens``: the longest history it will see, a first user token included; the place after it is asked
        for."""
        super().__init__()
        width = config.embedding_dim
        self.precision = config.precision
        self.mask = nn.Parameter(torch.empty(width))
        self.position = nn.Embedding(max_tokens + 1, width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(TwoSidedBlock(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(width)
        self._initialise(config.initial_std)

    def forward(self, tokens: Tensor, layout: Layout, hidden: Tensor) -> Tensor:
        """Queries ``[N, D]`` in the places ``hidden`` ``[N]`` of the ``tokens`` ``[T, D]``."""
        assert isinstance(layout, Buckets), "layout_of makes them"
        given = tokens.index_copy(0, hidden, self.mask.to(tokens.dtype).expand(len(hidden), -1))
        states = over_buckets(given, layout, self._states)
        queries: Tensor = self.norm(states.index_select(0, hidden))
        return queries

    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """The query ``[b, D]`` in the place after each history's end; the last block computes no other."""
        *blocks, final = self._blocks()
        place = torch.arange(tokens.shape[1] + 1, device=tokens.device)
        is_asked, is_token = place == lengths[:, None], place <= lengths[:, None]
        given = torch.where(is_asked[..., None], self.mask, functional.pad(tokens, (0, 0, 0, 1)))
        states = self._entered(given)
        for block in blocks:
            states = block.two_sided(states, is_token)
        queries: Tensor = self.norm(final.bucket_last(states, lengths))
        return queries

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """Of a token: each block's products, and two products with each token of its history."""
        products = [each for block in self._blocks() for each in block.products()]
        mean_attended = float((lengths * lengths).sum() / lengths.sum())
        return EncoderFlop(tuple(products), 4.0 * len(self.blocks) * self.position.embedding_dim * mean_attended)

    def _states(self, tokens: Tensor, index: Tensor) -> Tensor:
        """``[b, L, D]`` of a bucket through all blocks; places after a history's end repeat its last ``index``."""
        place = torch.arange(index.shape[1], device=index.device)
        is_token = place <= index[:, -1:] - index[:, :1]
        states = self._entered(tokens)
        is_narrow = self.training and self.precision is Precision.BF16
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=is_narrow):
            for block in self._blocks():
                states = block.two_sided(states, is_token)
        return states

    def _entered(self, tokens: Tensor) -> Tensor:
        entered: Tensor = self.dropout(tokens + self.position.weight[: tokens.shape[1]])
        return entered

    def _blocks(self) -> list[TwoSidedBlock]:
        return [block for block in self.blocks if isinstance(block, TwoSidedBlock)]

    def _initialise(self, std: float) -> None:
        for weight in (self.mask, self.position.weight):
            nn.init.normal_(weight, std=std)
        initialise_products(self)
