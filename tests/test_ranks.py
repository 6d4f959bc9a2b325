"""The helper that runs tests on several ranks."""

import pytest
import torch
import torch.distributed as dist

from ranks import run_ranks


def sum_over_ranks(offset: int) -> tuple[int, float]:
    total = torch.tensor(float(dist.get_rank() + offset))
    dist.all_reduce(total)
    return dist.get_rank(), total.item()


def fail_on_rank_one() -> None:
    assert dist.get_rank() != 1, "rank one breaks"


def test_each_rank_returns_its_value() -> None:
    assert run_ranks(2, sum_over_ranks, 10) == [(0, 21.0), (1, 21.0)]


def test_the_traceback_of_a_rank_reaches_the_test() -> None:
    with pytest.raises(RuntimeError, match="rank one breaks"):
        run_ranks(2, fail_on_rank_one)
