"""Dropout keeps the mean, drops at its rate, follows torch's seed, and is nothing outside training."""

import pytest
import torch

from configs.schema import Precision, SASRecConfig
from models.attention import cpu_dropout
from models.attention.bucketed import buckets_of
from models.attention.cpu_dropout import cpu_attention_with_dropout
from models.attention.dispatch import causal_attention
from models.dropout import Dropout, dropout
from models.encoders.sasrec import SASRec


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_it_drops_at_its_rate_and_keeps_the_mean(rate: float):
    torch.manual_seed(0)
    out = dropout(torch.ones(200_000), rate)
    assert float((out == 0).float().mean()) == pytest.approx(rate, abs=0.006)
    assert float(out.mean()) == pytest.approx(1, rel=0.03)


def test_the_same_seed_draws_the_same_mask():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(1000), 0.3))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_what_is_dropped_gets_no_gradient():
    value = torch.ones(1000, requires_grad=True)
    out = dropout(value, 0.5)
    out.sum().backward()
    assert torch.equal(value.grad, out.detach())


def test_evaluation_drops_nothing():
    module = Dropout(0.5).eval()
    assert torch.equal(module(torch.ones(10)), torch.ones(10))


def test_attention_dropout_keeps_the_mean_and_the_past():
    torch.manual_seed(0)
    rates = {"dropout": 0.0, "attention_dropout": 0.3}
    encoder = SASRec(SASRecConfig(embedding_dim=8, feed_forward_dim=8, num_blocks=1, **rates), max_tokens=4)
    tokens = torch.randn(3, 8)
    layout = buckets_of(torch.tensor([3]))
    exact = encoder.eval()(tokens, layout)
    encoder.train()
    drawn = torch.stack([encoder(tokens, layout) for _ in range(3000)])
    assert float(drawn.std(0).max()) > 0
    torch.testing.assert_close(drawn.mean(0), exact, atol=0.15, rtol=0.1)
    changed = torch.cat([tokens[:2], torch.randn(1, 8)])
    torch.manual_seed(1)
    first = encoder(tokens, layout)
    torch.manual_seed(1)
    torch.testing.assert_close(encoder(changed, layout)[:2], first[:2])


@pytest.mark.parametrize("lengths", [[3], [7, 9, 5, 9], [1, 2, 8]])
@pytest.mark.parametrize("max_buckets", [1, 2])
def test_gradients_of_attention_with_dropout_are_those_of_its_values(
    lengths: list[int], max_buckets: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cpu_dropout, "ROWS", 3)
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3 * 4, dtype=torch.float64, requires_grad=True)
    layout = buckets_of(torch.tensor(lengths), max_buckets)

    def with_the_same_mask(qkv: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return causal_attention(qkv, layout, num_heads=2, rate=0.3)

    assert torch.autograd.gradcheck(with_the_same_mask, qkv)


def test_attention_with_dropout_in_blocks_equals_the_textbook_s_with_the_same_mask(monkeypatch: pytest.MonkeyPatch):
    """Values that are the unit vectors: what comes out is the probabilities themselves, each kept or dropped."""
    monkeypatch.setattr(cpu_dropout, "ROWS", 3)
    torch.manual_seed(0)
    query, key = torch.randn(2, 8, 8)
    packed = torch.stack([query, key, torch.eye(8)], 1).view(1, 8, 3, 1, 8)
    out = cpu_attention_with_dropout(packed, 0.5).view(8, 8)
    score = (query @ key.t() / 8**0.5).masked_fill(torch.ones(8, 8).triu(1).bool(), float("-inf"))
    expected = torch.softmax(score, -1) * 2
    is_kept = out != 0
    torch.testing.assert_close(out[is_kept], expected[is_kept])
    assert 0 < int(is_kept.sum()) < 36


def test_blocks_in_bfloat16_are_near_the_exact_ones_in_training_and_exact_outside():
    lengths = torch.tensor([40, 3, 70, 1])
    tokens = torch.randn(114, 16, generator=torch.Generator().manual_seed(0))
    queries, grads, ranked = [], [], []
    for precision in (Precision.FP32, Precision.BF16):
        torch.manual_seed(0)
        encoder = SASRec(SASRecConfig(embedding_dim=16, feed_forward_dim=16, precision=precision), max_tokens=70)
        query = encoder(tokens, buckets_of(lengths))
        grads.append(torch.autograd.grad(query.square().sum(), encoder.blocks[0].qkv.weight)[0])
        queries.append(query.detach())
        ranked.append(encoder.eval().last(tokens, buckets_of(lengths)).detach())
    assert torch.equal(*ranked)
    for near, exact in (queries[::-1], grads[::-1]):
        assert near.dtype == torch.float32
        assert 0 < float((near - exact).norm() / exact.norm()) < 0.03
