"""Lists over slices of a catalogue equal what sorting every item in NumPy gives, on any number of slices."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from train.top_items import ItemSlice, ListRule, Seen, TopItems, merged, ordered_sum, top_items


class Case(NamedTuple):
    """Queries [B, D], items [V, D], what each query has seen, and the value of each item."""

    query: torch.Tensor
    vector: torch.Tensor
    seen: list[set[int]]
    value: torch.Tensor


def case_of(seed: int, num_queries: int, num_items: int, width: int, *, has_ties: bool) -> Case:
    draw = np.random.default_rng(seed)
    sample = (lambda *shape: draw.integers(-2, 3, shape)) if has_ties else (lambda *shape: draw.normal(size=shape))
    query, vector = (torch.tensor(sample(num, width), dtype=torch.float32) for num in (num_queries, num_items))
    seen = [set(draw.integers(0, num_items, draw.integers(0, 6)).tolist()) for _ in range(num_queries)]
    return Case(query, vector, seen, torch.tensor(draw.integers(0, 4, num_items)))


def lists_of(case: Case, rule: ListRule, num_slices: int) -> TopItems:
    """As that many ranks would find them."""
    item = torch.arange(len(case.vector))
    size = -(-len(item) // num_slices)
    owner = torch.tensor([query for query, items in enumerate(case.seen) for _ in items], dtype=torch.int64)
    seen = Seen(owner, torch.tensor([item for items in case.seen for item in items], dtype=torch.int64))
    parts = [slice(start * size, (start + 1) * size) for start in range(num_slices)]
    slices = [ItemSlice(item[part], case.vector[part], case.value[part]) for part in parts]
    return merged([top_items(case.query, seen, each, rule) for each in slices], rule)


def brute_force(case: Case, rule: ListRule) -> list[list[int]]:
    score = case.query.double().numpy() @ case.vector.double().numpy().T
    lists = []
    for row, seen in zip(score, case.seen, strict=True):
        found = list[int]()
        values = list[int]()
        for item in sorted(range(len(row)), key=lambda item: (-row[item].round(9), item)):
            value = int(case.value[item])
            is_full = rule.max_per_value and values.count(value) >= rule.max_per_value
            if item not in seen and not is_full and len(found) < rule.k:
                found.append(item)
                values.append(value)
        lists.append(found + [-1] * (rule.k - len(found)))
    return lists


@pytest.mark.parametrize("max_per_value", [0, 2])
@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("num_items", [3, 200])
def test_lists_equal_sorting_every_item_on_any_number_of_ranks(num_items: int, has_ties: bool, max_per_value: int):
    case, rule = case_of(num_items, 20, num_items, 5, has_ties=has_ties), ListRule(min(num_items, 7), max_per_value)
    found = [lists_of(case, rule, num_slices) for num_slices in (1, 2, 4)]
    assert found[0].item.tolist() == brute_force(case, rule)
    for other in found[1:]:
        assert torch.equal(other.item, found[0].item)
        assert torch.equal(other.score, found[0].score)


def test_equal_scores_of_a_whole_catalogue_are_taken_by_id():
    case = Case(torch.ones(3, 4), torch.ones(500, 4), [{0, 1}, set(), {499}], torch.arange(500))
    found = lists_of(case, ListRule(4), 2)
    assert found.item.tolist() == [[2, 3, 4, 5], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_scores_that_float32_cannot_tell_apart_are_told_apart():
    """Beyond the candidates of a float32 product there lie better ones: 2^24 + 1 is no float32."""
    query = torch.tensor([[1.0, 1.0]])
    vector = torch.tensor([[2.0**24, 0.0]] * 100 + [[2.0**24, 1.0]])
    found = lists_of(Case(query, vector, [set()], torch.arange(101)), ListRule(1), 1)
    assert found.item.tolist() == [[100]]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64])
def test_sums_by_halves_are_sums(width: int):
    values = torch.arange(3 * width, dtype=torch.float64).view(3, width)
    assert torch.equal(ordered_sum(values), values.sum(1))
