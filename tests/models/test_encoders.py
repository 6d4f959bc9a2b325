"""What holds for every encoder there is: the seam's contract."""

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from configs.schema import UserInput
from configs.schema.model import TimeInput
from encoder_case import (
    CAUSAL,
    MAX_HISTORY,
    NAMES,
    NUM_ITEMS,
    batch_of,
    hiding,
    random_times,
    small_config,
    small_recommender,
)
from models.encoders.build import build_encoder
from models.encoders.encoder import Times

TIMES: list[tuple[str, dict[str, Any]]] = [("hstu", {"time": time}) for time in (TimeInput.NONE, TimeInput.REQUEST)]
CASES = [*((name, {}) for name in NAMES), *TIMES]
CAUSAL_CASES = [case for case in CASES if case[0] in CAUSAL]
HISTORIES = [[1, 2, 3, 4], [5, 6], [7, 8, 9], [10]]


def ends(histories: list[list[int]]) -> torch.Tensor:
    return torch.tensor([len(history) for history in histories]).cumsum(0) - 1


@pytest.mark.parametrize(("name", "choices"), CAUSAL_CASES, ids=str)
def test_the_last_query_is_that_of_the_whole_pass_also_padded_and_traced(name: str, choices: dict[str, Any]) -> None:
    recommender = small_recommender(name, **choices)
    encoder, draw = recommender.encoder, torch.Generator().manual_seed(1)
    lengths = torch.tensor([3, 1, MAX_HISTORY, 7, 2, 7])
    tokens = torch.randn(int(lengths.sum()), 8, generator=draw)
    times = random_times(lengths, draw) if encoder.reads_time else None
    layout = encoder.layout_of(lengths, len(tokens))
    whole = encoder(tokens, layout, times)[lengths.cumsum(0) - 1]
    torch.testing.assert_close(encoder.last(tokens, layout, times), whole, rtol=1e-5, atol=1e-5)

    def padded(values: torch.Tensor, padding: float) -> torch.Tensor:
        return pad_sequence(values.split(lengths.tolist()), batch_first=True, padding_value=padding)

    for padding in (0, 3):
        given = None if times is None else Times(*(padded(each, padding) for each in times))
        found = encoder.padded_last(padded(tokens, padding), lengths, given)
        torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "choices"), CAUSAL_CASES, ids=str)
@pytest.mark.parametrize("user_input", list(UserInput))
def test_training_and_ranking_ask_the_same_of_the_same_history(
    name: str, choices: dict[str, Any], user_input: UserInput
) -> None:
    recommender = small_recommender(name, num_users=9, user_input=user_input, **choices)
    trained = recommender(batch_of(HISTORIES), torch.arange(3)).query
    shorter = batch_of([history[:-1] for history in HISTORIES if len(history) > 1])
    shorter.asked_at = batch_of(HISTORIES).timestamp[ends(HISTORIES)[:3]]
    ranked = recommender(shorter, torch.arange(3), is_training=False).query
    torch.testing.assert_close(ranked, trained[torch.tensor([2, 3, 5])])


@pytest.mark.parametrize(("name", "choices"), CAUSAL_CASES, ids=str)
def test_the_future_and_batch_mates_do_not_reach_a_query(name: str, choices: dict[str, Any]) -> None:
    recommender = small_recommender(name, **choices)
    first, hours = [1, 2, 3, 4, 5], [0, 9, 70, 900, 9000]
    before = recommender(batch_of([first], [hours]), torch.arange(1)).query
    for place in range(1, 5):
        changed = [*first[:place], *([NUM_ITEMS - 1] * (5 - place))]
        times = [*hours[: place + 1], *(10**7 + each for each in hours[place + 1 :])]
        mates = [[7, 8, 9, 1, 2, 3, 4], [6, 6]]
        later = batch_of([mates[0], changed, mates[1]], [[*range(7)], times, [5, 6]])
        after = recommender(later, torch.arange(1)).query[6 : 6 + 4]
        torch.testing.assert_close(after[:place], before[:place], rtol=1e-5, atol=1e-5)
        assert not torch.isclose(after[place:], before[place:]).all(1).any(), "what did change is seen"


@pytest.mark.parametrize(("name", "choices"), CASES, ids=str)
def test_every_weight_gets_a_gradient_and_an_empty_batch_none(name: str, choices: dict[str, Any]) -> None:
    recommender = small_recommender(name, **choices).train()
    batch = hiding(batch_of(HISTORIES), name in CAUSAL)
    recommender(batch, torch.arange(1)).query.square().sum().mul(torch.rand(1)).backward()
    lacking = [key for key, weight in recommender.encoder.named_parameters() if weight.grad is None]
    assert not lacking
    recommender.zero_grad()
    empty = recommender(hiding(batch_of([]), name in CAUSAL), torch.arange(1))
    assert empty.query.shape == (0, 8)


@pytest.mark.parametrize(("name", "choices"), CASES, ids=str)
def test_dropout_is_drawn_in_training_alone(name: str, choices: dict[str, Any]) -> None:
    recommender = small_recommender(name, dropout=0.5, **choices)
    batch = hiding(batch_of(HISTORIES), name in CAUSAL)
    first, second = (recommender(batch, torch.arange(1)).query for _ in range(2))
    assert torch.equal(first, second)
    recommender.train()
    first, second = (recommender(batch, torch.arange(1)).query for _ in range(2))
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "gru4rec"])
def test_an_encoder_counts_the_arithmetic_that_torch_counts(name: str) -> None:
    """Of histories of one token, where causal attention is all of it; torch counts no recurrent layer."""
    encoder = build_encoder(small_config(name, embedding_dim=16), max_tokens=4)
    lengths = torch.ones(5, dtype=torch.int64)
    times = Times(torch.arange(5), torch.arange(5)) if encoder.reads_time else None
    layout = encoder.layout_of(lengths, 5)
    with FlopCounterMode(display=False) as counted:
        encoder(torch.randn(5, 16), layout, times if name in CAUSAL else torch.arange(5))
    flop = encoder.flop(lengths)
    assert counted.get_total_flops() == 5 * (flop.linear + flop.attention)
