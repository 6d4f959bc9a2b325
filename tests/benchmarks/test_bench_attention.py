"""The ways to attend that are raced compute the same."""

import torch

from benchmarks.bench_attention import padded_attention
from models.attention.bucketed import bucketed_attention, buckets_of


def test_padding_every_history_changes_no_value():
    lengths = torch.tensor([3, 9, 1, 9])
    qkv = torch.randn(22, 3 * 8, generator=torch.Generator().manual_seed(0))
    is_token = torch.arange(9) < lengths[:, None]
    ours = bucketed_attention(qkv, buckets_of(lengths), num_heads=2, rate=0.0)
    torch.testing.assert_close(padded_attention(qkv, is_token, num_heads=2, rate=0.0), ours)
