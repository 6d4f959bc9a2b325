"""Exact sums: the bits of ``math.fsum``, however values are cut, merged and ordered."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.prepare.write.exact_sum import exact_sum, rounded

FINITE = st.floats(min_value=-1e300, max_value=1e300)
NUM_MANY = 100_000
SMALLEST, LARGEST_MANTISSA = math.ulp(0.0), math.nextafter(1.0, 0.0)


def sum_in_pieces(values: np.ndarray, cuts: list[int]) -> float:
    """The pieces between ``cuts`` summed each for itself, the last one first."""
    pieces = np.split(values, sorted(cut % (len(values) + 1) for cut in cuts))
    return rounded(sum(exact_sum(piece) for piece in reversed(pieces)))


@settings(deadline=None)
@given(st.lists(FINITE), st.lists(st.integers(0, 1000), max_size=4), st.randoms())
def test_a_sum_is_fsum_bit_for_bit_in_every_cut_and_order(
    values: list[float], cuts: list[int], order: random.Random
) -> None:
    expected = math.fsum(values).hex()
    order.shuffle(values)
    assert sum_in_pieces(np.array(values, dtype=np.float64), cuts).hex() == expected


@settings(deadline=None)
@given(st.lists(FINITE), FINITE)
def test_what_cancels_leaves_the_small_exactly(values: list[float], small: float) -> None:
    whole = np.array([*values, small, *(-value for value in values)])
    assert rounded(exact_sum(whole)) == small


MANY = {
    "of all exponents": lambda draw: draw.standard_normal(NUM_MANY) * 2.0 ** draw.integers(-1060, 900, NUM_MANY),
    "subnormal": lambda draw: SMALLEST * draw.integers(-(2**40), 2**40, NUM_MANY).astype(np.float64),
    "of one sign with all bits set": lambda draw: np.full(NUM_MANY, LARGEST_MANTISSA),
    "negative with all bits set": lambda draw: np.full(NUM_MANY, -LARGEST_MANTISSA),
    "alike": lambda draw: np.full(NUM_MANY, 0.1),
    "zeros of both signs": lambda draw: draw.choice([0.0, -0.0], NUM_MANY),
}


@pytest.mark.parametrize("kind", MANY)
def test_many_values_are_summed_as_exactly(kind: str) -> None:
    values = MANY[kind](np.random.default_rng(0))
    expected = math.fsum(values.tolist()).hex()
    assert sum_in_pieces(values, []).hex() == expected
    assert sum_in_pieces(values, [1, 70_001, 33_000, 33_000]).hex() == expected
