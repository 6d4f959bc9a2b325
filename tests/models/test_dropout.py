"""Dropout keeps the mean, drops at its rate, follows torch's seed, and is nothing outside training."""

import pytest
import torch

from configs.schema import SASRecConfig
from models.attention import layout_of
from models.dropout import Dropout, dropout
from models.sasrec import SASRec


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
    layout = layout_of(torch.tensor([3]))
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
