"""Attention over jagged tokens equals the textbook's, history by history."""

import pytest
import torch

from configs.schema import SASRecConfig
from models.attention.bucketed import buckets_of
from models.attention.dispatch import causal_attention
from models.attention.varlen import supports_varlen, varlen_layout_of
from models.encoders.sasrec import SASRec
from textbook import textbook_attention


@pytest.mark.parametrize("lengths", [[3, 1, 7, 7, 2], [0, 4, 0], [5], [0, 0], []])
def test_attention_over_buckets_equals_attention_over_each_history(lengths):
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3 * 8)
    ours = causal_attention(qkv, buckets_of(torch.tensor(lengths, dtype=torch.int64), 3), num_heads=2, rate=0.0)
    expected = [textbook_attention(history, 2) for history in qkv.split(lengths)] if lengths else []
    torch.testing.assert_close(ours, torch.cat([*expected, torch.zeros(0, 8)]))


def test_gradients_over_buckets_equal_those_of_each_history():
    torch.manual_seed(0)
    lengths = [3, 1, 7, 7, 2]
    qkv = torch.randn(sum(lengths), 3 * 8, requires_grad=True)
    weight = torch.randn(sum(lengths), 8)
    ours = causal_attention(qkv, buckets_of(torch.tensor(lengths), 3), num_heads=2, rate=0.0)
    expected = torch.cat([textbook_attention(history, 2) for history in qkv.split(lengths)])
    grads = [torch.autograd.grad((out * weight).sum(), qkv)[0] for out in (ours, expected)]
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_the_last_query_of_each_history_equals_that_of_the_whole_pass(num_blocks: int):
    torch.manual_seed(0)
    lengths = torch.tensor([3, 1, 7, 6, 2])
    config = SASRecConfig(embedding_dim=8, feed_forward_dim=8, num_blocks=num_blocks, initial_std=1.0)
    encoder = SASRec(config, max_tokens=7).eval()
    for bias in (block.qkv.bias for block in encoder.blocks):
        torch.nn.init.normal_(bias)
    tokens = torch.randn(19, 8)
    layout = buckets_of(lengths, 3)
    torch.testing.assert_close(encoder.last(tokens, layout), encoder(tokens, layout)[lengths.cumsum(0) - 1])


def test_jagged_histories_lie_where_buckets_say():
    lengths = torch.tensor([2, 0, 3])
    layout = varlen_layout_of(lengths, 5, longest=200)
    assert layout.offsets.tolist() == [0, 2, 2, 5]
    assert layout.offsets.dtype == torch.int32
    assert torch.equal(layout.position, buckets_of(lengths).position)
    assert layout.longest == 5, "kernels refuse more than there are tokens"


@pytest.mark.parametrize(("head_width", "rate"), [(32, 0.2), (12, 0.0), (256, 0.0)])
def test_jagged_kernels_are_not_used_where_they_are_wrong_or_untried(head_width: int, rate: float):
    """In float32 with dropout their gradient is that of another mask than the one drawn."""
    assert not supports_varlen(torch.device("cuda"), head_width, torch.float32, rate)
    assert supports_varlen(torch.device("cuda"), 32, torch.float32, 0.0)
    assert not supports_varlen(torch.device("cpu"), 32, torch.float32, 0.0)


def test_positions_count_from_the_start_of_each_history():
    assert buckets_of(torch.tensor([2, 0, 3])).position.tolist() == [0, 1, 0, 1, 2]


def test_the_future_and_batch_mates_do_not_reach_a_query():
    torch.manual_seed(0)
    encoder = SASRec(SASRecConfig(embedding_dim=8, feed_forward_dim=8), max_tokens=8).eval()
    first, other = torch.randn(4, 8), torch.randn(6, 8)
    changed = torch.cat([first[:2], torch.randn(2, 8)])
    alone = encoder(first, buckets_of(torch.tensor([4])))
    with_mates = encoder(torch.cat([other, changed]), buckets_of(torch.tensor([6, 4])))[6:]
    torch.testing.assert_close(alone[:2], with_mates[:2])
    assert not torch.allclose(alone[2:], with_mates[2:])
