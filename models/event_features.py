"""What is known of an event beside its item, as vectors that are added to the item's.

T events, D the width of the model.
"""

import torch
from torch import Tensor, nn


class EventFeatures(nn.Module):
    """A vector a code for each category, and a line through the vectors' space for each number; replicated."""

    def __init__(self, num_codes: dict[str, int], embedding_dim: int, std: float) -> None:
        """``num_codes`` of each category by name, 0 for a number; vectors begin with deviation ``std``."""
        super().__init__()
        self.names = list(num_codes)
        self.vectors = nn.ModuleList(
            nn.Embedding(size, embedding_dim) if size else nn.Linear(1, embedding_dim) for size in num_codes.values()
        )
        for module in self.vectors:
            assert isinstance(module, nn.Embedding | nn.Linear), "modules are built above"
            nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    @property
    def is_category(self) -> dict[str, bool]:
        """By the name of each feature; those that are none are numbers."""
        return {name: isinstance(each, nn.Embedding) for name, each in zip(self.names, self.vectors, strict=True)}

    def forward(self, event: Tensor, features: dict[str, Tensor], index: Tensor | None = None) -> Tensor:
        """Item vectors ``event`` [T, D] plus those of their ``features``, at ``index`` [T]; None: in order."""
        for name, vectors in zip(self.names, self.vectors, strict=True):
            values = features[name] if index is None else features[name].index_select(0, index)
            event = event + vectors(values.unsqueeze(1) if torch.is_floating_point(values) else values)
        return event
