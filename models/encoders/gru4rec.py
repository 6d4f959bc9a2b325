"""GRU4Rec: recurrent layers over the history (Hidasi et al., 2016), trained on every event of it.

b histories, L the longest of them, D the width of the model.
"""

from torch import Tensor, nn

from configs.schema.model import GRU4RecConfig
from models.dropout import Dropout
from models.encoders.encoder import EncoderFlop, Times
from models.encoders.padded import PaddedEncoder


class GRU4Rec(PaddedEncoder):
    """Layers as wide as the model, dropout before each, a norm at the end."""

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__()
        self.width = config.embedding_dim
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(
            nn.GRU(self.width, self.width, batch_first=True) for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(self.width)

    def padded(self, tokens: Tensor, times: Times | None) -> Tensor:
        """``[b, L, D]`` to the same."""
        for layer in self.layers:
            tokens, _ = layer(self.dropout(tokens))
        return self.norm(tokens)

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """Three gates of the input and three of the state, layer by layer."""
        return EncoderFlop(((self.width, 3 * self.width),) * 2 * len(self.layers), 0.0)
