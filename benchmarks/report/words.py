"""Numbers and sentences of a report, as a person reads them."""

from collections.abc import Sequence

COST_NAMES = {"usd": "dollars", "device_hours": "device-hours", "kwh": "kWh"}


def metric_name(metric: str) -> str:
    """``ndcg@10`` -> ``NDCG@10``."""
    return metric.upper()


def amount(value: float, cost: str) -> str:
    """``value`` with its unit: $0.0123, $1,234, 0.5 device-hours."""
    return f"${plain(value)}" if cost == "usd" else f"{plain(value)} {COST_NAMES[cost]}"


def plain(value: float) -> str:
    """Two digits that matter, no exponent; cents from one on, whole numbers from a hundred on."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    digits = min(-int(f"{value:e}".partition("e")[2]) + 1, 12)
    return f"{value:.{digits}f}"


def score(value: float) -> str:
    """A metric between 0 and 1."""
    return f"{value:.4f}"


def interval(low: float | None, high: float | None) -> str:
    """Of a metric."""
    return "not recorded" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def seconds(value: float) -> str:
    """A duration: 1.2 s, 3.4 min, 5.6 h."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60)):
        if value < limit:
            return f"{value / size:.1f} {unit}"
    return f"{value / 3600:,.1f} h"


def joined(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def step_sentence(first: str, second: str, metric: str, cost: str, step: dict[str, float | None]) -> str:
    """What the next point costs from one neighbour on the front to the other.

    ``step``: ``gain``, ``cost``, ``cost_of_a_point``, and of a paired test ``gain_low`` and ``gain_high``, or None.
    """
    gain, price, of_a_point = (float(step[key] or 0.0) for key in ("gain", "cost", "cost_of_a_point"))
    name = metric_name(metric)
    words = (
        f"From {first} to {second}: {score(gain)} more {name} for {amount(price, cost)} more, so the next point of "
        f"{name} (0.01) costs {amount(of_a_point, cost)}."
    )
    low, high = step.get("gain_low"), step.get("gain_high")
    if low is None or high is None:
        return words
    found = f" User by user the gain is {low:+.4f} to {high:+.4f} (95 %)"
    if low <= 0:
        return f"{words}{found}: it may be nothing, and the money with it."
    ends = [amount(price / bound * 0.01, cost) for bound in (high, low)]
    return f"{words}{found}, a point {ends[0]} to {ends[1]}."
