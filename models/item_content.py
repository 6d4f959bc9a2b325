"""What is known of an item beside its id, as vectors that are added to the item's own.

N items that are asked for, V items, K codes of all items, E numbers of a given vector, D the width of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS_AT_ONCE = 64
"""Given vectors that are projected together where no gradient is asked for: a row alone, or among others, would come
out otherwise in its last bits, and with it by how many ranks share the catalogue."""


@dataclass(frozen=True, slots=True)
class ContentValues:
    """One feature of all items."""

    values: Tensor
    """Codes int64 [V], numbers float32 [V], given vectors float32 [V, E], or with ``offsets`` codes [K]."""
    num_codes: int
    """Codes lie below it; 0 for numbers and vectors."""
    offsets: Tensor | None = None
    """int64 [V + 1]: where the codes of each item begin; None where it has one value."""

    def to(self, device: torch.device) -> "ContentValues":
        """The values on ``device``."""
        offsets = None if self.offsets is None else self.offsets.to(device)
        return replace(self, values=self.values.to(device), offsets=offsets)


class ItemContent(nn.Module):
    """A vector a code, the mean of several ones times the root of their number, and a linear map of numbers.

    The weights are replicated, and trained as the encoder's; the values lie beside them on every rank and are in no
    checkpoint. Only the items that are asked for are worked out.
    """

    def __init__(self, features: Sequence[ContentValues], embedding_dim: int, std: float) -> None:
        """Vectors begin with deviation ``std``."""
        super().__init__()
        self._features = list(features)
        self.embedding_dim = embedding_dim
        self.projections = nn.ModuleList(_projection(feature, embedding_dim) for feature in features)
        for module in self.projections:
            assert isinstance(module, nn.Embedding | nn.Linear), "modules are built above"
            nn.init.normal_(module.weight, std=std)

    def forward(self, item: Tensor) -> Tensor:
        """The content ``[N, D]`` of dense ids ``item`` ``[N]``."""
        if self._features and self._features[0].values.device != item.device:
            self._features = [feature.to(item.device) for feature in self._features]
        parts = [
            _content(feature, part, item) for feature, part in zip(self._features, self.projections, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:  # `sum` adds up in an order that depends on the number of items
            total = total + part
        return total


def _projection(feature: ContentValues, embedding_dim: int) -> nn.Module:
    if feature.num_codes:
        return nn.Embedding(feature.num_codes, embedding_dim)
    width = feature.values.shape[1] if feature.values.dim() == 2 else 1
    return nn.Linear(width, embedding_dim, bias=False)  # an item without a vector has no content by it


def _content(feature: ContentValues, projection: nn.Module, item: Tensor) -> Tensor:
    if feature.offsets is not None:
        assert isinstance(projection, nn.Embedding), "codes have vectors"
        return _bags(feature.values, feature.offsets, projection.weight, item)
    values = feature.values.index_select(0, item)
    if feature.num_codes:
        return projection(values)
    values = values if values.dim() == 2 else values[:, None]
    if torch.is_grad_enabled():
        return projection(values)
    num_rows = len(values)
    whole = functional.pad(values, (0, 0, 0, -num_rows % ROWS_AT_ONCE)).split(ROWS_AT_ONCE)
    return torch.cat([projection(rows) for rows in whole])[:num_rows]


def _bags(codes: Tensor, offsets: Tensor, weight: Tensor, item: Tensor) -> Tensor:
    """The sum of the vectors of each item's codes over the root of their number; zeros where it has none."""
    first = offsets.index_select(0, item)
    length = offsets.index_select(0, item + 1) - first
    start = torch.cumsum(length, 0) - length
    place = torch.repeat_interleave(first - start, length)  # waits for a GPU
    own = codes.index_select(0, place + torch.arange(len(place), device=item.device))
    share = torch.repeat_interleave(length.clamp(min=1).to(weight.dtype).rsqrt(), length)
    return functional.embedding_bag(own, weight, start, mode="sum", per_sample_weights=share)
