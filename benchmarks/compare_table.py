"""A comparison of runs as a person reads it."""

from collections.abc import Iterator
from typing import Any

ALPHA = 0.05
"""Below it, after Holm's correction, a difference is called one."""
_COSTS = {"usd": "USD", "device_hours": "device-hours", "kwh": "kWh"}


def comparison_lines(found: dict[str, Any]) -> Iterator[str]:
    """The lines of the table of :func:`benchmarks.compare.compare`."""
    seen = "left out" if found["protocol"].get("leave_out_seen") else "kept"
    yield f"{found['split']}, {found['num_users']:,} users, whole catalogue, seen items {seen}"
    runs = found["runs"]
    for number, run in enumerate(runs):
        yield f"{_name(number)} = {run['label']}  ({run['place']})"
    yield ""
    yield (
        f"{'':10}{'metric':>9}{'first':>9}{'second':>9}{'difference':>12}  {'95 % interval':20}"
        f"{'p':>8}{'p (Holm)':>10}  verdict"
    )
    for each in found["differences"]:
        yield _difference_line(each)
    yield ""
    for ratios in found["cost_ratios"]:
        yield _cost_line(ratios, runs)
    num_tests = len(found["differences"])
    tests = f"{num_tests} tests, p corrected for their number" if num_tests > 1 else "one test"
    yield (
        f"differences are second less first, over users; {tests}. They say what other users would show, not what "
        f"other seeds would"
    )


def _difference_line(each: dict[str, Any]) -> str:
    pair = f"{_name(each['second'])} - {_name(each['first'])}"
    interval = f"{each['low']:+.4f} to {each['high']:+.4f}"
    return (
        f"{pair:10}{each['metric']:>9}{each['first_value']:9.4f}{each['second_value']:9.4f}"
        f"{each['difference']:+12.4f}  {interval:20}{_p(each['p_value']):>8}{_p(each['p_value_holm']):>10}  "
        f"{_verdict(each)}"
    )


def _verdict(each: dict[str, Any]) -> str:
    if each["p_value_holm"] >= ALPHA:
        return "not distinguishable"
    return f"{_name(each['second'])} is {'better' if each['difference'] > 0 else 'worse'}"


def _cost_line(ratios: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    parts = [
        f"{ratios[key]:.2f} times the {name}" if ratios[key] is not None else f"{name} not recorded by both"
        for key, name in _COSTS.items()
    ]
    return f"{_name(ratios['second'])} cost of {_name(ratios['first'])}: {', '.join(parts)}"


def _name(number: int) -> str:
    """A, B, ... Z, then by number."""
    return chr(ord("A") + number) if number < 26 else f"R{number + 1}"


def _p(value: float) -> str:
    return "<.0001" if value < 1e-4 else f"{value:.4f}".removeprefix("0")
