"""The Pareto front by its definition, on points drawn at random with many ties."""

import random

from benchmarks.report.front import POINT, Point, beaten_by, front_of, steps_along


def points_of(draw: random.Random) -> list[Point]:
    plane = [(draw.randrange(6), draw.randrange(6)) for _ in range(draw.randrange(1, 9))]
    return [Point(f"{cost}, {quality}", float(cost), quality / 10, 0.0, 1.0) for cost, quality in plane]


def beats(first: Point, second: Point) -> bool:
    """By the definition: no dearer, no worse, and one of the two is better."""
    no_worse = first.cost <= second.cost and first.quality >= second.quality
    return no_worse and (first.cost, first.quality) != (second.cost, second.quality)


def test_a_point_is_on_the_front_where_no_other_beats_it() -> None:
    draw = random.Random(0)
    for _ in range(300):
        points = points_of(draw)
        front = {(points[place].cost, points[place].quality) for place in front_of(points)}
        unbeaten = {(each.cost, each.quality) for each in points if not any(beats(other, each) for other in points)}
        assert front == unbeaten
        assert len(front_of(points)) == len(front), "equal points stand there once"


def test_who_beats_a_point_costs_no_more_and_is_no_worse() -> None:
    draw = random.Random(1)
    for _ in range(300):
        points = points_of(draw)
        front = front_of(points)
        beaten = beaten_by(points, front)
        assert sorted([*beaten, *front]) == list(range(len(points)))
        for place, better in beaten.items():
            assert points[better].cost <= points[place].cost
            assert points[better].quality >= points[place].quality


def test_steps_go_up_and_add_up() -> None:
    draw = random.Random(2)
    for _ in range(300):
        points = points_of(draw)
        front = front_of(points)
        steps = steps_along(points, front)
        assert all(step.gain > 0 and step.cost > 0 for step in steps)
        assert len(steps) == len(front) - 1
        whole = points[front[-1]].quality - points[front[0]].quality
        assert abs(sum(step.gain for step in steps) - whole) < 1e-12
        paid = sum(step.cost_of_a_point * step.gain / POINT for step in steps)
        assert abs(paid - (points[front[-1]].cost - points[front[0]].cost)) < 1e-9
