"""A recommender without its tables, over padded histories: what is exported as a program.

B histories, L the longest of them, D the width of the model.
"""

import torch
from torch import Tensor, nn

from configs.schema import UserInput
from models.recommender import Recommender


class DenseRecommender(nn.Module):
    """Looked-up vectors and features of events to queries; the weights are those of the recommender."""

    def __init__(self, recommender: Recommender) -> None:
        super().__init__()
        self.user_input, self.event_features = recommender.user_input, recommender.event_features
        self.encoder = recommender.encoder

    def forward(
        self,
        item_vectors: Tensor,
        lengths: Tensor,
        user_vectors: Tensor | None = None,
        features: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Queries ``[B, D]`` after the last event of each history.

        ``item_vectors`` ``[B, L, D]`` of the events, the oldest first, padded at the end; ``lengths`` int64 ``[B]``,
        from 1 to L; ``user_vectors`` ``[B, D]`` where the model has a user table; ``features`` by name, codes int64
        or numbers float32 ``[B, L]``, where it has some.
        """
        tokens = item_vectors
        if self.event_features is not None and features is not None:
            events = {name: values.flatten() for name, values in features.items()}
            tokens = self.event_features(tokens.flatten(0, 1), events).view_as(item_vectors)
        if user_vectors is not None and self.user_input is UserInput.ADD:
            tokens = tokens + user_vectors[:, None]
        if user_vectors is not None and self.user_input is UserInput.FIRST_TOKEN:
            tokens, lengths = torch.cat([user_vectors[:, None], tokens], dim=1), lengths + 1
        return self.encoder.padded_last(tokens, lengths)
