"""What every encoder is: the seam between a recommender and the mathematics of a model. docs/add_a_model.md.

T tokens in the batch, B histories, L the longest of them, D the width of the model.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models.attention.dispatch import Layout


class Times(NamedTuple):
    """When things happened, int64 in ms; both have a number for each token.

    A user's token that stands before the events has the time of the oldest one.
    """

    event: Tensor
    """Of each token's event."""
    asked: Tensor
    """When the query after each token is asked: the time of the next event. After the last one it is that of the
    request where one is known, else that of the last event."""

    def at(self, index: Tensor) -> "Times":
        """Those of the tokens at ``index``, in its shape."""
        return Times(self.event[index], self.asked[index])


@dataclass(frozen=True, slots=True)
class EncoderFlop:
    """The arithmetic of one token, forward."""

    products: tuple[tuple[int, int], ...]
    """Inner and outer width of each matrix product that a token takes part in, those of every block."""
    attention: float
    """FLOP of its attention over the history, two a multiply-add; the mean over tokens."""

    @property
    def linear(self) -> float:
        """FLOP of the products."""
        return 2.0 * sum(inner * outer for inner, outer in self.products)


class Encoder(Protocol):
    """A module of one device: vectors of histories in, queries out.

    It is given vectors, not ids: an item's vector, to which those of its event's features (``model.event_features``,
    such as the kind of the event) and with ``model.user_input=add`` the user's are added already. Nothing of another
    history, and of padding, may reach a query.
    """

    training: bool
    is_causal: bool
    """Whether a query depends on no later token, so that every token of a history can be trained on at once. If not,
    it is a :class:`MaskedEncoder`, and its config says which events are hidden (``masking``)."""
    reads_time: bool
    """Whether it wants :class:`Times`; otherwise they are None, and nobody makes them."""

    def layout_of(self, lengths: Tensor, num_tokens: int) -> Layout:
        """Where the tokens of histories of ``lengths`` ``[B]`` lie, ``num_tokens`` in all: made once a batch, for the
        three calls below. Histories may be empty."""
        ...

    def __call__(self, tokens: Tensor, layout: Layout, times: Times | None = None) -> Tensor:
        """Queries ``[T, D]`` after each of the ``tokens`` ``[T, D]``, which lie end to end, the oldest first."""
        ...

    def last(self, tokens: Tensor, layout: Layout, times: Times | None = None) -> Tensor:
        """The query ``[B, D]`` after the last token of each history, none of them empty, in their order: what ranking
        asks for. Equal to the last ones of the whole pass, usually for less work."""
        ...

    def padded_last(self, tokens: Tensor, lengths: Tensor, times: Times | None = None) -> Tensor:
        """:meth:`last` of histories padded at their end, ``[B, L, D]`` with ``lengths`` ``[B]`` from 1 to L.

        It is traced for the export, so no choice may hang on the values; what the padding holds changes nothing.
        """
        ...

    def flop(self, lengths: Tensor) -> EncoderFlop:
        """The arithmetic of a token of histories of ``lengths`` ``[B]``, without padding."""
        ...


class MaskedEncoder(Protocol):
    """What training asks of an :class:`Encoder` that looks at both sides: queries in the place of hidden tokens."""

    def __call__(self, tokens: Tensor, layout: Layout, hidden: Tensor) -> Tensor:
        """Queries ``[N, D]`` in the places of the tokens at ``hidden`` ``[N]``, an index into ``tokens`` ``[T, D]``.

        Nothing of what lies there reaches any query. :meth:`Encoder.last` asks the same for one place after the
        history's end.
        """
        ...


def mean_attended(lengths: Tensor) -> float:
    """Tokens that a token looks at under causal attention, itself included; the mean over all tokens."""
    return float((lengths * (lengths + 1) / 2).sum() / lengths.sum())


def at_last(rows: Tensor, last: Tensor) -> Tensor:
    """Row ``last[b]`` of each of ``rows`` ``[B, L, D]``: ``[B, D]``."""
    place = last[:, None, None].expand(-1, 1, rows.shape[2])
    return torch.gather(rows, 1, place)[:, 0]
