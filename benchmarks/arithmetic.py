"""The speed that arithmetic alone would allow: FLOP of a token, over the rate that bare matrix products reach here.

T tokens in a batch, D the width, C the candidates of a token.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.harness import seconds_of
from models.encoders.encoder import Encoder

LARGE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the square product that stands for a device's largest rate."""

FORWARD_AND_BACKWARD = 3
"""A product has two gradients, each as large as itself."""

STATED_TOKENS_PER_S = {"full_softmax": 73_000, "full_softmax_bf16": 228_000, "sampled_128": 273_000}
"""Bounds for MovieLens 1M at width 64, 2 blocks, on 2 cores: forward FLOP of a token are
98 K in the blocks, 39 K in attention (102 K if padded to 200) and 437 K (3,417 items) or 17 K (128 negatives) in the
head; three times that with backward, at the 126 GFLOP/s of fp32 that such products
reach (394 in bf16). A run measures its own rate too."""


@dataclass(slots=True)
class TokenFlop:
    """Forward FLOP of one token, two a multiply-add."""

    blocks: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """Of a whole step: forward and backward."""
        return FORWARD_AND_BACKWARD * (self.blocks + self.attention + self.head)


def token_flop(
    encoder: Encoder, width: int, lengths: Tensor, num_candidates: int, predicted_share: float = 1.0
) -> TokenFlop:
    """Mean over the tokens of histories that have ``lengths`` ``[B]`` of them, without padding.

    The encoder counts its own; the head scores its queries of ``width`` against ``num_candidates``, those of the
    ``predicted_share`` of the tokens.
    """
    flop, head = encoder.flop(lengths), 2.0 * width * num_candidates * predicted_share
    return TokenFlop(blocks=flop.linear, attention=flop.attention, head=head)


def bound_tokens_per_s(
    products: Iterable[tuple[int, int]],
    width: int,
    flop: TokenFlop,
    num_tokens: int,
    num_candidates: int,
    chunk_tokens: int,
    device: torch.device,
    block_dtype: torch.dtype,
    head_dtype: torch.dtype,
) -> float:
    """Tokens a second if a step were its matrix products and nothing else, at the rates measured now.

    ``products``: widths of those of the encoder; ``width`` is that of its queries. ``block_dtype`` and
    ``head_dtype`` are those of the products; attention is counted at the rate of the blocks.
    """
    shapes = list(dict.fromkeys(products)) or [(width, width)]
    block_rate = sum(_rate(num_tokens, *shape, device, block_dtype) for shape in shapes) / len(shapes)
    head_rate = _rate(min(chunk_tokens, num_tokens), width, num_candidates, device, head_dtype)
    seconds = (flop.blocks + flop.attention) / block_rate + flop.head / head_rate
    return 1 / (FORWARD_AND_BACKWARD * seconds)


def largest_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of large square products of ``dtype``: what utilisation is a share of."""
    size = LARGE[device.type]
    return _rate(size, size, size, device, dtype)


def _rate(
    rows: int,
    inner: int,
    columns: int,
    device: torch.device,
    dtype: torch.dtype,
    num_repeats: int = 10,
) -> float:
    """Best FLOP/s of ``[rows, inner] @ [inner, columns]`` and its two gradients, into buffers that are reused."""
    left, right = (torch.randn(*shape, device=device, dtype=dtype) for shape in ((rows, inner), (inner, columns)))
    out = left.new_empty(rows, columns)
    left_grad, right_grad = torch.empty_like(left), torch.empty_like(right)

    def products() -> None:
        torch.mm(left, right, out=out)
        torch.mm(out, right.t(), out=left_grad)
        torch.mm(left.t(), out, out=right_grad)

    best = min(seconds_of(products) for _ in range(num_repeats))
    return 2.0 * FORWARD_AND_BACKWARD * rows * inner * columns / best
