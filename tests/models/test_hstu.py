"""HSTU against its formulae, written out a query at a time."""

import math

import torch

from configs.schema.model import HSTUConfig, TimeInput
from encoder_case import batch_of, random_times, small_recommender
from models.encoders.encoder import Times
from models.encoders.hstu import HSTU, looked_up, time_buckets


def silu(value: torch.Tensor) -> torch.Tensor:
    return value * torch.sigmoid(value)


def normed(value: torch.Tensor) -> torch.Tensor:
    return (value - value.mean(-1, keepdim=True)) / (value.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def formula(encoder: HSTU, tokens: torch.Tensor, times: Times) -> torch.Tensor:
    """One history ``[L, D]``, as the paper writes it."""
    length, width = tokens.shape
    hidden = tokens * math.sqrt(width) + encoder.position.weight[:length]
    for block in encoder.blocks:
        gate, value, query, key = silu(normed(hidden) @ block.uvqk.weight.T).split(width, 1)
        rows = []
        for i in range(length):
            heads = []
            for part in torch.arange(width).chunk(block.num_heads):
                mixed = torch.zeros(len(part))
                for j in range(i + 1):
                    apart_s = max(1.0, abs(int(times.asked[i] - times.event[j])) / 1000)
                    bucket = min(128, math.floor(math.log(apart_s) / 0.301))
                    bias = block.place_bias[i - j] + block.time_bias[bucket]
                    mixed = mixed + silu(query[i, part] @ key[j, part] + bias) / block.max_tokens * value[j, part]
                heads.append(mixed)
            rows.append(torch.cat(heads))
        hidden = hidden + block.project(gate * normed(torch.stack(rows)))
    return encoder.norm(hidden)


@torch.no_grad()
def test_it_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(0)
    config = HSTUConfig(embedding_dim=8, num_heads=2, time=TimeInput.REQUEST, initial_std=0.5)
    encoder = HSTU(config, max_tokens=6).eval()
    lengths, draw = torch.tensor([5, 1, 6]), torch.Generator().manual_seed(2)
    tokens, times = torch.randn(12, 8, generator=draw), random_times(lengths, draw)
    ours = encoder(tokens, encoder.layout_of(lengths, 12), times)
    parts = zip(*(each.split(lengths.tolist()) for each in (tokens, *times)), strict=True)
    expected = torch.cat([formula(encoder, part, Times(event, asked)) for part, event, asked in parts])
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_times_matter_where_they_are_read_and_nowhere_else() -> None:
    near, far = [[0, 1, 2, 3]], [[0, 10**3, 10**5, 10**7]]
    for time in TimeInput:
        recommender = small_recommender("hstu", time=time)
        queries = [recommender(batch_of([[1, 2, 3, 4]], times), torch.arange(1)).query for times in (near, far)]
        assert torch.allclose(*queries) is (time is TimeInput.NONE)


def test_the_time_of_the_request_reaches_the_last_query_only_where_it_is_asked_for() -> None:
    for time in (TimeInput.EVENT, TimeInput.REQUEST):
        recommender, batch = small_recommender("hstu", time=time), batch_of([[1, 2, 3]])
        queries = []
        for asked_s in (10**4, 10**6):
            batch.asked_at = torch.tensor([asked_s * 1000])
            queries.append(recommender(batch, torch.arange(1), is_training=False).query)
        assert torch.allclose(*queries) is (time is TimeInput.EVENT)


def test_buckets_of_time_are_those_of_the_paper() -> None:
    seconds = torch.tensor([0.0, 0.5, 1.0, 1.3, 1.4, 60.0, 86_400.0, 4 * 365 * 86_400.0, 1e30])
    assert time_buckets(seconds[:-1] * 1000).tolist() == [0, 0, 0, 0, 1, 13, 37, 61]
    assert time_buckets(torch.tensor([-60_000])).tolist() == [13]


def test_the_gradient_of_a_lookup_is_that_of_torch() -> None:
    weight, index = torch.randn(7, requires_grad=True), torch.randint(7, (3, 5, 5))
    factor = torch.randn(3, 5, 5)
    ours, theirs = (
        torch.autograd.grad((found * factor).sum(), weight)[0] for found in (looked_up(weight, index), weight[index])
    )
    torch.testing.assert_close(ours, theirs)
