"""Where a split by global time lies: by share of the events, or by dates."""

from typing import TYPE_CHECKING

from configs.errors import require
from configs.schema.times import milliseconds_of

if TYPE_CHECKING:
    from configs.schema.data import DataConfig

DEFAULT_FRACTIONS = (0.8, 0.9)
"""Those of :class:`DataConfig`: fractions that differ were set by the user."""


def global_time_dates(config: "DataConfig") -> tuple[int, int] | None:
    """The first milliseconds of validation and of test, where they are given as dates; None: by fractions."""
    if not config.global_time_valid:
        return None
    valid_ms = milliseconds_of("data.global_time_valid", config.global_time_valid)
    return valid_ms, milliseconds_of("data.global_time_test", config.global_time_test)


def check_global_time(config: "DataConfig") -> None:
    """Raise :class:`ConfigError` for boundaries out of order, and for dates beside fractions."""
    fractions = (config.global_time_valid_fraction, config.global_time_test_fraction)
    valid, test = config.global_time_valid, config.global_time_test
    require(
        0 < fractions[0] < fractions[1] < 1,
        f"data.global_time_valid_fraction={fractions[0]} must lie below "
        f"data.global_time_test_fraction={fractions[1]}, both inside (0, 1)",
    )
    if not valid and not test:
        return
    require(
        bool(valid) and bool(test),
        f"data.global_time_valid={valid} and data.global_time_test={test} are set together: the dates on which "
        f"validation and test begin, such as 2024-01-31",
    )
    require(
        fractions == DEFAULT_FRACTIONS,
        f"data.global_time_valid={valid} and data.global_time_valid_fraction={fractions[0]}, "
        f"data.global_time_test_fraction={fractions[1]} both say where the split is; set dates or fractions",
    )
    dates = global_time_dates(config)
    require(
        dates is not None and dates[0] < dates[1],
        f"data.global_time_valid={valid} must lie before data.global_time_test={test}",
    )
