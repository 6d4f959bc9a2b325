"""What a GPU computes is what the textbook says in float64: attention, losses, ranks."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from configs.schema import HardwareConfig, Precision, SASRecConfig
from models.attention.bucketed import buckets_of
from models.attention.dispatch import Layout, causal_attention, last_attention, last_tokens, layout_of
from models.attention.varlen import VarlenLayout
from models.collectives import SingleProcess
from models.encoders.sasrec import SASRec
from models.loss.full_softmax import full_softmax_loss
from ranking_case import brute_force_ranks, ranks_here
from textbook import textbook_attention, textbook_probabilities
from train.distributed.collectives import process_group

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

LENGTHS = [[3, 1, 7, 7, 2], [0, 70, 0, 1, 200, 33], [1], [0]]
NUM_HEADS, WIDTH = 2, 32
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_attention_and_its_gradients_equal_the_textbook_s(lengths: list[int], dtype: torch.dtype):
    torch.manual_seed(0)
    exact = torch.randn(sum(lengths), 3 * WIDTH, dtype=torch.float64)
    weight = torch.randn(sum(lengths), WIDTH, dtype=torch.float64)
    ours = exact.cuda().to(dtype).requires_grad_()
    layout = _layout(lengths, dtype)
    assert isinstance(layout, VarlenLayout), "this width suits the kernels"
    mixed = causal_attention(ours, layout, num_heads=NUM_HEADS, rate=0.0)
    (mixed * weight.cuda()).sum().backward()
    theirs = exact.requires_grad_()
    expected = torch.cat([textbook_attention(history, NUM_HEADS) for history in theirs.split(lengths)])
    (expected * weight).sum().backward()
    assert mixed.dtype == dtype
    _assert_near(mixed, expected, TOLERANCE[dtype])
    _assert_near(ours.grad, theirs.grad, TOLERANCE[dtype])


def test_the_last_token_s_attention_is_that_of_the_whole_pass():
    torch.manual_seed(0)
    lengths = [70, 1, 200, 33]
    qkv, layout = torch.randn(sum(lengths), 3 * WIDTH, device="cuda"), _layout(lengths, torch.float32)
    last = last_tokens(layout)
    whole = causal_attention(qkv, layout, num_heads=NUM_HEADS, rate=0.0)
    ours = last_attention(qkv[last, :WIDTH], qkv[:, WIDTH:], layout, num_heads=NUM_HEADS)
    torch.testing.assert_close(ours, whole[last])


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_attention_drops_probabilities_at_its_rate_and_keeps_the_mean(dtype: torch.dtype):
    """Values that are the unit vectors: what comes out is the probabilities themselves, each kept or dropped."""
    torch.manual_seed(0)
    query, key = torch.randn(2, 8, 8)
    qkv = torch.cat([query, key, torch.eye(8)], 1).cuda().to(dtype)
    layout = _layout([8], dtype, head_width=8, rate=0.25)
    expected = causal_attention(qkv, layout, num_heads=1, rate=0.0).float()
    drawn = torch.stack([causal_attention(qkv, layout, num_heads=1, rate=0.25) for _ in range(2000)]).float()
    is_past = torch.ones(8, 8, device="cuda").tril().bool()
    assert float((drawn[:, is_past] == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(drawn.mean(0), expected, atol=0.05, rtol=0.1)
    assert bool((drawn[:, ~is_past] == 0).all())


@pytest.mark.parametrize("head_width", [8, 16, 64, 128])
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_gradients_are_those_of_the_mask_that_was_drawn(dtype: torch.dtype, head_width: int):
    """The kept probabilities of a seed are read off by values that are unit vectors, a part of the keys at a time."""
    lengths = [150, 1, 200]
    layout = _layout(lengths, dtype, head_width, rate=0.25)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, sum(lengths), head_width, device="cuda")
    weight = torch.randn(sum(lengths), head_width, device="cuda")

    def attended(*parts: Tensor) -> Tensor:
        torch.manual_seed(1)
        return causal_attention(torch.cat(parts, 1).to(dtype), layout, num_heads=1, rate=0.25)

    rows = torch.arange(200, device="cuda")
    place = torch.cat([rows[:length] for length in lengths])
    kept = []
    for first in range(0, 200, head_width):
        unit = (place[:, None] == torch.arange(first, first + head_width, device="cuda")).float()
        kept.append(attended(query, key, unit).float())
    dropped = torch.cat(kept, 1)[:, :200]
    parts = [part.clone().requires_grad_() for part in (query, key, value)]
    (attended(*parts).float() * weight).sum().backward()
    exact = [part.double().requires_grad_() for part in (query, key, value)]
    expected = torch.cat(
        [
            _with_kept(*(part[start : start + length] for part in exact), dropped[start : start + length, :length])
            for start, length in zip([0, 150, 151], lengths, strict=True)
        ]
    )
    (expected * weight).sum().backward()
    for ours, theirs in zip(parts, exact, strict=True):
        _assert_near(ours.grad, theirs.grad, TOLERANCE[dtype] * 2)


@pytest.mark.parametrize("precision", list(Precision))
def test_the_future_and_batch_mates_do_not_reach_a_query(precision: Precision):
    torch.manual_seed(0)
    config = SASRecConfig(
        embedding_dim=32, feed_forward_dim=32, dropout=0.0, attention_dropout=0.0, precision=precision
    )
    encoder = SASRec(config, max_tokens=64).cuda().train()
    first, other = torch.randn(40, 32, device="cuda"), torch.randn(60, 32, device="cuda")
    changed = torch.cat([first[:20], torch.randn(20, 32, device="cuda")])
    alone = encoder(first, encoder.layout_of(torch.tensor([40]).cuda(), 40))
    with_mates = encoder(torch.cat([other, changed]), encoder.layout_of(torch.tensor([60, 40]).cuda(), 100))[60:]
    _assert_near(alone[:20], with_mates[:20], 1e-5 if precision is Precision.FP32 else 1e-2)
    assert not torch.allclose(alone[20:], with_mates[20:], atol=0.1)


def test_a_head_that_suits_no_kernel_is_padded_and_right():
    torch.manual_seed(0)
    lengths = torch.tensor([3, 7])
    qkv = torch.randn(10, 3 * 12, dtype=torch.float32)
    layout = _layout(lengths.tolist(), torch.float32, head_width=6)
    assert not isinstance(layout, VarlenLayout)
    ours = causal_attention(qkv.cuda(), layout, num_heads=2, rate=0.0)
    torch.testing.assert_close(ours.cpu(), causal_attention(qkv, buckets_of(lengths), num_heads=2, rate=0.0))


@pytest.mark.parametrize("chunk_tokens", [100, 10_000])
@pytest.mark.parametrize(
    ("precision", "scale", "tolerance"),
    [(Precision.FP32, 0.3, 1e-5), (Precision.FP32, 30.0, 3e-4), (Precision.BF16, 0.3, 2e-2)],
    ids=str,
)
def test_the_full_softmax_and_its_gradients_equal_cross_entropy(
    chunk_tokens: int, precision: Precision, scale: float, tolerance: float
):
    torch.manual_seed(0)
    query, item, target = torch.randn(777, 32) * scale, torch.randn(1001, 32), torch.randint(1001, (777,))
    ours, theirs = (
        [each.detach().to(device=device, dtype=dtype).requires_grad_() for each in (query, item)]
        for device, dtype in (("cuda", torch.float32), ("cpu", torch.float64))
    )
    options = {"chunk_tokens": chunk_tokens, "collectives": SingleProcess(), "precision": precision}
    loss = full_softmax_loss(ours[0], target.cuda(), ours[1], range(1001), **options)
    expected = functional.cross_entropy(theirs[0] @ theirs[1].t(), target, reduction="sum")
    assert float(loss) == pytest.approx(float(expected), rel=tolerance)
    loss.backward()
    expected.backward()
    for near, exact in zip(ours, theirs, strict=True):
        _assert_near(near.grad, exact.grad, tolerance)


@pytest.mark.parametrize("leave_out_seen", [True, False])
def test_ranks_equal_brute_force(leave_out_seen: bool):
    with process_group(HardwareConfig(device="cuda", num_ranks=1)):
        assert ranks_here(leave_out_seen, "cuda") == brute_force_ranks(leave_out_seen)


def _layout(
    lengths: list[int], dtype: torch.dtype, head_width: int = WIDTH // NUM_HEADS, rate: float = 0.0
) -> Layout:
    return layout_of(
        torch.tensor(lengths, dtype=torch.int64, device="cuda"),
        sum(lengths),
        longest=256,
        head_width=head_width,
        dtype=dtype,
        rate=rate,
        is_training=True,
    )


def _with_kept(query: Tensor, key: Tensor, value: Tensor, dropped: Tensor) -> Tensor:
    """Attention with the textbook's probabilities where ``dropped`` ``[L, L]`` has some, scaled by rate .25."""
    return (textbook_probabilities(query, key) * (dropped > 0) / 0.75) @ value


def _assert_near(found: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    """By the norm of the difference, as rounding adds up."""
    assert found is not None
    assert expected is not None
    exact = expected.detach().double().cpu()
    difference = float((found.detach().double().cpu() - exact).norm())
    assert difference <= tolerance * float(exact.norm()), f"{difference / float(exact.norm()):.1e}"
