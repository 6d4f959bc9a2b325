"""BERT4Rec against its formula, and that nothing hidden, padded or of another history reaches a query."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from configs.schema import Precision, UserInput
from configs.schema.model import BERT4RecConfig
from data_pipeline.batch import SequenceBatch
from encoder_case import MAX_HISTORY, NUM_ITEMS, batch_of, small_recommender
from models.dense_recommender import DenseRecommender
from models.encoders.bert4rec import BERT4Rec
from models.recommender import Recommender

HISTORIES = [[1, 2, 3, 4, 5], [5, 6], [7, 8, 9], [10, 11, 12, 13, 14, 15, 16, 17, 18]]
HIDDEN = [[1, 3], [1], [0], [2, 3, 8]]
"""Places of each history."""
EVERY_INPUT = [*({"user_input": user_input} for user_input in UserInput), {"num_blocks": 1}]


def formula(encoder: BERT4Rec, tokens: Tensor, hidden: list[int]) -> Tensor:
    """One history ``[L, D]``, with whose places ``hidden`` are asked for: a query at a time, no mask, no padding."""
    length, width = tokens.shape
    states = [encoder.mask if place in hidden else tokens[place] for place in range(length)]
    states = [state + encoder.position.weight[place] for place, state in enumerate(states)]
    for block in encoder.blocks:
        found = []
        packed = [block.qkv(block.attention_norm(state)) for state in states]
        for place in range(length):
            heads = []
            for part in torch.arange(width).chunk(block.num_heads):
                query = packed[place][part]
                scores = torch.stack([query @ other[width + part] for other in packed]) / len(part) ** 0.5
                values = torch.stack([other[2 * width + part] for other in packed])
                heads.append(functional.softmax(scores, 0) @ values)
            state = states[place] + block.project(torch.cat(heads))
            found.append(state + block.feed_forward(block.feed_forward_norm(state)))
        states = found
    return torch.stack([encoder.norm(states[place]) for place in hidden])


def hiding(places: list[list[int]], histories: list[list[int]] = HISTORIES) -> SequenceBatch:
    batch = batch_of(histories)
    flags = [
        place in hidden for history, hidden in zip(histories, places, strict=True) for place in range(len(history))
    ]
    batch.is_hidden = torch.tensor(flags)
    return batch


def queries(recommender: Recommender, batch: SequenceBatch) -> Tensor:
    return recommender(batch, torch.arange(1)).query


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 3])
def test_it_is_the_formula(num_blocks: int) -> None:
    torch.manual_seed(0)
    config = BERT4RecConfig(embedding_dim=8, num_heads=2, num_blocks=num_blocks, initial_std=0.5)
    encoder, lengths = BERT4Rec(config, MAX_HISTORY).eval(), torch.tensor([len(history) for history in HISTORIES])
    tokens, first = torch.randn(int(lengths.sum()), 8), lengths.cumsum(0) - lengths
    hidden = torch.cat([start + torch.tensor(places) for start, places in zip(first, HIDDEN, strict=True)])
    ours = encoder(tokens, encoder.layout_of(lengths, len(tokens)), hidden)
    parts = zip(tokens.split(lengths.tolist()), HIDDEN, strict=True)
    torch.testing.assert_close(ours, torch.cat([formula(encoder, *part) for part in parts]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("choices", EVERY_INPUT, ids=str)
def test_what_is_hidden_reaches_no_query_and_all_that_is_seen_does(choices: dict[str, Any]) -> None:
    recommender = small_recommender("bert4rec", num_users=9, **choices)
    before = queries(recommender, hiding(HIDDEN))
    flags = hiding(HIDDEN).is_hidden
    assert flags is not None
    changed = hiding(HIDDEN)
    changed.item = torch.where(flags, (changed.item + 7) % NUM_ITEMS, changed.item)
    torch.testing.assert_close(queries(recommender, changed), before, rtol=0, atol=0)
    assert not torch.equal(
        recommender(changed, torch.arange(1)).target, recommender(hiding(HIDDEN), torch.arange(1)).target
    )
    for place in (0, 2, 4):  # of the first history: before, between and after the hidden ones
        changed = hiding(HIDDEN)
        changed.item[place] = NUM_ITEMS - 1
        after = queries(recommender, changed)
        assert not torch.isclose(after[:2], before[:2]).all(1).any()
        torch.testing.assert_close(after[2:], before[2:])


@torch.no_grad()
def test_the_features_of_a_hidden_event_reach_no_query() -> None:
    recommender = small_recommender("bert4rec", event_features=["kind"], num_codes={"kind": 5})
    batch = hiding(HIDDEN)
    flags, kind = batch.is_hidden, torch.arange(len(batch.item)) % 5
    assert flags is not None
    batch.features = {"kind": kind}
    before = queries(recommender, batch)
    batch.features = {"kind": torch.where(flags, (kind + 1) % 5, kind)}
    torch.testing.assert_close(queries(recommender, batch), before, rtol=0, atol=0)
    batch.features = {"kind": torch.where(flags, kind, (kind + 1) % 5)}
    assert not torch.isclose(queries(recommender, batch), before).all(1).any()


@torch.no_grad()
@pytest.mark.parametrize("choices", EVERY_INPUT, ids=str)
def test_ranking_asks_for_one_more_place_as_training_does_where_the_last_event_is_hidden(
    choices: dict[str, Any],
) -> None:
    """The longest history of ranking is one event shorter than that of training, so every place was trained."""
    recommender = small_recommender("bert4rec", num_users=9, **choices)
    histories = [*HISTORIES, list(range(MAX_HISTORY + 1))]
    trained = queries(recommender, hiding([[len(history) - 1] for history in histories], histories))
    shorter = batch_of([history[:-1] for history in histories])
    ranked = recommender(shorter, torch.arange(1), is_training=False).query
    torch.testing.assert_close(ranked, trained, rtol=1e-5, atol=1e-5)
    items, users = recommender.table_rows(shorter.item, shorter.user)
    for padding in (0, 3):
        padded = pad_sequence(items.split(shorter.lengths.tolist()), batch_first=True, padding_value=padding)
        found = DenseRecommender(recommender)(padded, shorter.lengths, users)
        torch.testing.assert_close(found, trained, rtol=1e-5, atol=1e-5)


def test_batch_mates_and_padding_reach_neither_a_query_nor_a_gradient() -> None:
    recommender = small_recommender("bert4rec").train()
    for module in recommender.modules():
        for name in ("rate", "attention_dropout"):
            setattr(module, name, 0.0) if hasattr(module, name) else None

    def gradient(places: list[list[int]], histories: list[list[int]]) -> dict[str, Tensor]:
        recommender.zero_grad()
        queries(recommender, hiding(places, histories)).pow(3).sum().backward()
        return {
            name: weight.grad.clone() for name, weight in recommender.named_parameters() if weight.grad is not None
        }

    together = gradient(HIDDEN, HISTORIES)
    apart = [gradient([places], [history]) for places, history in zip(HIDDEN, HISTORIES, strict=True)]
    assert together.keys() == apart[0].keys()
    for name, found in together.items():
        expected = sum((each[name] for each in apart), start=torch.zeros_like(found))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, msg=name)


def test_dropout_of_attention_keeps_its_mean() -> None:
    """The way of a CPU, which writes attention out, against torch's own."""
    recommender = small_recommender("bert4rec", dropout=0.0, attention_dropout=0.3, num_blocks=1)
    torch.manual_seed(1)
    encoder = recommender.train().encoder
    assert isinstance(encoder, BERT4Rec)
    encoder.norm = torch.nn.Identity()  # so that queries hang on the mixed values in a line
    for block in encoder.blocks:
        block.feed_forward = torch.nn.Identity()
        block.feed_forward_norm = torch.nn.Identity()
    num = 1000
    drawn = queries(recommender, hiding(HIDDEN * num, HISTORIES * num)).unflatten(0, (num, -1))
    expected = queries(recommender.eval(), hiding(HIDDEN))
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - expected).abs() < 5 * error + 1e-5).all()


def test_narrow_blocks_are_close_to_wide_ones() -> None:
    found = []
    for precision in Precision:
        recommender = small_recommender("bert4rec", dropout=0.0, attention_dropout=0.0, precision=precision).train()
        found.append(queries(recommender, hiding(HIDDEN)))
    assert not torch.equal(*found)
    torch.testing.assert_close(*found, rtol=0.05, atol=0.1)
