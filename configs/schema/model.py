"""The choices of an encoder."""

from dataclasses import dataclass, field
from enum import Enum

from configs.bounds import check_bounds
from configs.errors import require
from configs.schema.precision import Precision


class UserInput(str, Enum):
    """How the user table reaches the encoder."""

    NONE = "none"
    ADD = "add"
    FIRST_TOKEN = "first_token"


@dataclass(kw_only=True, slots=True)
class SASRecConfig:
    """Causal self-attention over the history (Kang & McAuley, 2018), pre-norm."""

    embedding_dim: int = 64
    """Width of the tables and of the model, a multiple of 4."""
    num_blocks: int = 2
    """Blocks of attention and feed-forward layers."""
    num_heads: int = 2
    """Attention heads of each block."""
    feed_forward_dim: int = 64
    """Width of the feed-forward layers."""
    dropout: float = 0.2
    """Share of values dropped in training, except inside of attention."""
    attention_dropout: float = 0.2
    """Share of attention weights dropped in training."""
    user_input: UserInput = UserInput.NONE
    """How the user table reaches the encoder."""
    event_features: list[str] = field(default_factory=list)
    """Features of the store that are added to the vectors of the history's items."""
    initial_std: float = 0.02
    """Standard deviation of the first weights and table rows."""
    precision: Precision = Precision.FP32
    """Number format of the blocks' linear layers in training; norms, residuals and ranking are float32."""

    def __post_init__(self) -> None:
        check_bounds(
            "model.",
            self,
            embedding_dim=(1, 2**16),
            num_blocks=(1, 1000),
            num_heads=(1, 2**16),
            feed_forward_dim=(1, 2**20),
            dropout=(0, 0.95),
            attention_dropout=(0, 0.95),
            initial_std=(1e-6, 100),
        )
        require(
            self.embedding_dim % self.num_heads == 0,
            f"model.embedding_dim={self.embedding_dim} must be a multiple of model.num_heads={self.num_heads}, "
            f"so that every head gets the same width",
        )
        require(
            self.embedding_dim % 4 == 0,
            f"model.embedding_dim={self.embedding_dim} must be a multiple of 4: fbgemm aligns its rows to 16 bytes",
        )
        names = self.event_features
        require(len(set(names)) == len(names), f"model.event_features={names} names a feature twice")
