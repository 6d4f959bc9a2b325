"""What is hidden is a function of (seed, step, user, place): of no order, no neighbour and no number of ranks."""

import numpy as np
import torch

from configs.schema.model import Masking
from data_pipeline.batch import SequenceBatch
from encoder_case import batch_of
from models.masking import hidden_events

MASKING = Masking(fraction=0.2, last_fraction=0.1)


def many(num_users: int, longest: int) -> SequenceBatch:
    draw = np.random.default_rng(0)
    return batch_of([draw.integers(0, 30, draw.integers(1, longest + 1)).tolist() for _ in range(num_users)])


def of_users(batch: SequenceBatch, **choices: int) -> dict[int, list[bool]]:
    flags = hidden_events(batch, MASKING, **{"seed": 3, "step": 5, **choices})
    return dict(
        zip(batch.user.tolist(), (each.tolist() for each in flags.split(batch.lengths.tolist())), strict=True)
    )


def some_of(batch: SequenceBatch, users: list[int]) -> SequenceBatch:
    items = batch.item.split(batch.lengths.tolist())
    some = batch_of([items[user].tolist() for user in users])
    some.user = torch.tensor(users, dtype=torch.int64)
    return some


def test_neither_the_order_nor_the_parts_of_a_batch_matter() -> None:
    batch, users = many(200, 20), np.random.default_rng(1).permutation(200).tolist()
    whole = of_users(batch)
    parts = [of_users(some_of(batch, users[start : start + 37])) for start in range(0, 200, 37)]
    assert {user: flags for part in parts for user, flags in part.items()} == whole
    assert of_users(some_of(batch, [])) == {}


def test_another_seed_step_or_user_is_another_draw() -> None:
    batch = batch_of([[1] * 60] * 40)
    first = of_users(batch)
    assert len({tuple(flags) for flags in first.values() if sum(flags) > 1}) > 30
    for choices in ({"seed": 4}, {"step": 6}, {"seed": 2**63, "step": 2**40}):
        other = of_users(batch, **choices)
        assert sum(other[user] == first[user] for user in first) < 10, "those with the last event alone may be equal"


def test_every_sequence_has_something_to_find_and_something_to_find_it_by() -> None:
    for user, flags in of_users(many(2000, 6)).items():
        assert any(flags) == (len(flags) > 1), user


def test_the_shares_are_those_that_were_asked_for() -> None:
    batch, num = batch_of([[1] * 100] * 2000), 2000
    for fraction, last_fraction in ((0.2, 0.1), (0.6, 0.0), (0.15, 1.0)):
        masking = Masking(fraction, last_fraction)
        flags = torch.stack([hidden_events(batch, masking, seed=0, step=step).view(num, 100) for step in range(5)])
        only_last = flags[..., -1] & (flags.sum(-1) == 1)
        assert abs(float(only_last.double().mean()) - last_fraction) < 0.015
        drawn = flags[~only_last].double()
        assert not len(drawn) or abs(float(drawn.mean()) - fraction) < 0.003
        assert not len(drawn) or (drawn.mean(0) - fraction).abs().max() < 0.03, "at every place alike"


def test_two_sequences_of_a_user_are_drawn_apart() -> None:
    batch = batch_of([[1] * 60, [2] * 60])
    batch.user = torch.tensor([7, 7])
    apart = [hidden_events(batch, MASKING, seed=0, step=step).view(2, 60) for step in range(20)]
    assert sum(torch.equal(*flags) for flags in apart) < 4
