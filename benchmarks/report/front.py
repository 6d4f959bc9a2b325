"""Which configurations are worth their cost: the Pareto front, who beats the others, and the price of each step."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

POINT = 0.01
"""Of a metric, by which people count: "a point of NDCG"."""


@dataclass(frozen=True, slots=True)
class Point:
    """A configuration in the plane of cost and quality. ``low`` and ``high``: the 95 % interval of its quality."""

    label: str
    cost: float
    quality: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Step:
    """From one point of the front to the next: places in the list of points, and what is gained for how much."""

    cheaper: int
    better: int
    gain: float
    cost: float

    @property
    def cost_of_a_point(self) -> float:
        """What :data:`POINT` more costs here."""
        return self.cost / self.gain * POINT


def front_of(points: Sequence[Point]) -> list[int]:
    """The places of those points that no other beats, the cheapest first.

    A point is beaten by one that costs no more and is no worse, and is better in one of the two; of equal ones the
    first is on the front.
    """
    order = sorted(range(len(points)), key=lambda place: (points[place].cost, -points[place].quality, place))
    front: list[int] = []
    for place in order:
        if not front or points[place].quality > points[front[-1]].quality:
            front.append(place)
    return front


def beaten_by(points: Sequence[Point], front: Sequence[int]) -> dict[int, int]:
    """For each point that is not on ``front``, the best point that costs no more."""
    found = {}
    for place, point in enumerate(points):
        if place not in front:
            found[place] = max(
                (each for each in front if points[each].cost <= point.cost), key=lambda each: points[each].quality
            )
    return found


def steps_along(points: Sequence[Point], front: Sequence[int]) -> list[Step]:
    """Each pair of neighbours on ``front``."""
    return [
        Step(
            cheaper=first,
            better=second,
            gain=points[second].quality - points[first].quality,
            cost=points[second].cost - points[first].cost,
        )
        for first, second in itertools.pairwise(front)
    ]
