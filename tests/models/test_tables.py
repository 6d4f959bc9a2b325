"""A table's first rows do not depend on how it is cut."""

import torch

from models.tables import initial_rows


def test_a_row_starts_alike_wherever_it_lies():
    whole = initial_rows(7, "item", 0, 100, 8, 0.02)
    parts = [initial_rows(7, "item", start, 25, 8, 0.02) for start in range(0, 100, 25)]
    assert torch.equal(whole, torch.cat(parts))


def test_tables_seeds_and_rows_differ():
    rows = initial_rows(7, "item", 0, 50, 8, 0.02)
    assert len(torch.unique(rows, dim=0)) == 50
    assert not torch.equal(rows, initial_rows(7, "user", 0, 50, 8, 0.02))
    assert not torch.equal(rows, initial_rows(8, "item", 0, 50, 8, 0.02))


def test_rows_are_normal():
    rows = initial_rows(0, "item", 0, 20_000, 16, 1.0)
    assert abs(float(rows.mean())) < 0.01
    assert abs(float(rows.std()) - 1) < 0.01
    assert abs(float((rows**4).mean()) - 3) < 0.1
