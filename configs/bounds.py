"""Bounds of numbers: what lies outside is refused by its key, ``nan`` and ``inf`` too."""

from typing import Any

from configs.errors import require

COUNT = 10**9
"""A ceiling for what is counted, far above what any run needs, and below what overflows an array's index."""
SECONDS = 30 * 24 * 3600
"""A ceiling for what is waited for: 30 days."""
SEED = 2**63 - 1
"""The largest seed that torch takes."""
TINY = 1e-12
"""The least of what must be positive."""


def check_bounds(prefix: str, config: Any, **bounds: tuple[float, float]) -> None:
    """Raise :class:`ConfigError` for each key of ``bounds`` whose value is not within ``(lowest, highest)``."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        require(low <= value <= high, f"{prefix}{name}={value} {_rule(value, low, high)}")


def _rule(value: float, low: float, high: float) -> str:
    if value < low:
        return "must not be negative" if low == 0 else f"must be at least {_plain(low)}"
    if value > high:
        return f"must be at most {_plain(high)}"
    return "must be a number"


def _plain(number: float) -> str:
    """Whole numbers without an exponent."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"
