"""A table's optimizer state has one name and shape, whether fbgemm keeps it or torch."""

import pytest
import torch

from configs.schema import TableOptimizer
from train.checkpoint.state_dict import table_state

ROWS, WIDTH = 5, 4
STATES = {
    "rowwise_adagrad": ({"item.momentum1": (ROWS,)}, {"step": (), "sum": (ROWS, 1)}),
    "adagrad": ({"item.momentum1": (ROWS, WIDTH)}, {"step": (), "sum": (ROWS, WIDTH)}),
    "adam": (
        {"item.momentum1": (ROWS, WIDTH), "item.exp_avg_sq": (ROWS, WIDTH)},
        {"step": (), "exp_avg": (ROWS, WIDTH), "exp_avg_sq": (ROWS, WIDTH)},
    ),
    "sgd": ({}, {}),
}


@pytest.mark.parametrize("optimizer", STATES)
def test_fbgemms_state_and_torchs_have_the_same_names_and_shapes(optimizer: str):
    fused, plain = STATES[optimizer]
    found = [
        [(tensor.name, tensor.shape, tensor.dtype, [place for _, place in tensor.parts]) for tensor in tensors]
        for tensors in (state_of(optimizer, fused), state_of(optimizer, plain))
    ]
    assert sorted(found[0]) == sorted(found[1])


def state_of(optimizer: str, slots: dict[str, tuple[int, ...]]):
    values = {name: torch.zeros(shape) for name, shape in slots.items()}
    weight = torch.zeros(ROWS, WIDTH)
    return table_state("tables.embeddings.item.weight", weight, values, TableOptimizer(optimizer), step=7)
