"""What no attention gives: the vector of the last token, and the mean of the history; each behind a norm.

b histories, L the longest of them, D the width of the model.
"""

import torch
from torch import Tensor, nn

from configs.schema.model import EncoderConfig
from models.dropout import Dropout
from models.encoders.encoder import EncoderFlop, Times
from models.encoders.padded import PaddedEncoder


class LastToken(PaddedEncoder):
    """The query is the last token: what comes next hangs on one item alone, as in a Markov chain."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.embedding_dim)

    def padded(self, tokens: Tensor, times: Times | None) -> Tensor:
        """``[b, L, D]`` to the same."""
        return self.norm(self.dropout(tokens))

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """No product at all."""
        return EncoderFlop((), 0.0)


class MeanToken(LastToken):
    """The query is the mean of the history so far, in which order does not count."""

    def padded(self, tokens: Tensor, times: Times | None) -> Tensor:
        """``[b, L, D]`` to the same."""
        num_tokens = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        return self.norm(self.dropout(tokens).cumsum(1) / num_tokens[:, None])
