"""SASRec: pre-norm causal Transformer blocks with learned positions.

D is the width of the model.
"""

from torch import Tensor, nn

from configs.schema import SASRecConfig
from configs.schema.model import AttentionConfig
from models.dropout import Dropout
from models.encoders.transformer import AttentionBlock, Transformer


class Block(AttentionBlock):
    """Attention and feed-forward, each behind a layer norm and beside a residual path."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        width = config.embedding_dim
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.feed_forward_dim),
            nn.GELU(),
            Dropout(config.dropout),
            nn.Linear(config.feed_forward_dim, width),
        )

    def joined(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        """Both parts are added to what entered, ``[..., D]``."""
        tokens = tokens + self.dropout(self.project(mixed))
        return tokens + self.dropout(self.feed_forward(self.feed_forward_norm(tokens)))


class SASRec(Transformer):
    """Self-attentive sequential recommendation (Kang & McAuley, 2018), with pre-norm blocks and GELU."""

    def __init__(self, config: SASRecConfig, max_tokens: int) -> None:
        """``max_tokens``: the longest history it will see, a first user token included."""
        super().__init__(config, max_tokens, Block)
