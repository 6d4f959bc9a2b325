"""The choices of an encoder."""

from dataclasses import dataclass, field
from enum import Enum

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
        for name in ("embedding_dim", "num_blocks", "num_heads", "feed_forward_dim"):
            require(getattr(self, name) >= 1, f"model.{name}={getattr(self, name)} must be at least 1")
        require(
            self.embedding_dim % self.num_heads == 0,
            f"model.embedding_dim={self.embedding_dim} must be a multiple of model.num_heads={self.num_heads}, "
            f"so that every head gets the same width",
        )
        require(
            self.embedding_dim % 4 == 0,
            f"model.embedding_dim={self.embedding_dim} must be a multiple of 4: fbgemm aligns its rows to 16 bytes",
        )
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) <= 0.95, f"model.{name}={getattr(self, name)} must lie in [0, 0.95]")
        names = self.event_features
        require(len(set(names)) == len(names), f"model.event_features={names} names a feature twice")
        require(self.initial_std > 0, f"model.initial_std={self.initial_std} must be positive")
