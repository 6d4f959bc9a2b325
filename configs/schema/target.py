"""A quality that a run is trained until: ``ndcg@10:0.17``."""

import math
from dataclasses import dataclass

from configs.errors import ConfigError, require
from configs.schema.evaluation import LESS_IS_BETTER, check_metric

EXAMPLE = "train.target=ndcg@10:0.17"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of the validation and its value."""

    metric: str
    value: float

    def is_reached(self, value: float) -> bool:
        """Whether a validation with ``value`` is good enough."""
        return value <= self.value if self.metric in LESS_IS_BETTER else value >= self.value

    def __str__(self) -> str:
        return f"{self.metric}:{self.value:g}"


def parse_target(text: str) -> Target:
    """Of ``METRIC:VALUE``; :class:`ConfigError` where it is none."""
    metric, _, value = (part.strip() for part in text.partition(":"))
    try:
        number = float(value)
    except ValueError as error:
        raise ConfigError(
            f"train.target={text} is not METRIC:VALUE, a figure of the validation and a number, as {EXAMPLE}"
        ) from error
    require(math.isfinite(number) and number >= 0, f"train.target={text}: {value} is no value that can be reached")
    metric = metric.lower()
    check_metric(f"train.target={text}", metric)
    require(
        metric in LESS_IS_BETTER or 0 < number <= 1,
        f"train.target={text}: {metric} is a share of 1; set a number up to 1, as {EXAMPLE}",
    )
    return Target(metric, number)
