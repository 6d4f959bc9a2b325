"""Ranks over a sharded catalogue equal a brute-force NumPy reference, ties included, at any world size."""

import pytest

from ranking_case import brute_force_ranks, ranks_here
from ranks import run_ranks


@pytest.mark.parametrize("leave_out_seen", [True, False])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_equal_brute_force_on_every_rank(world_size: int, leave_out_seen: bool):
    expected = brute_force_ranks(leave_out_seen)
    assert run_ranks(world_size, ranks_here, leave_out_seen) == [expected] * world_size
