"""Which program turns a log into a store: both make the same one."""

from enum import Enum


class Engine(str, Enum):
    """``embedded`` is Polars on this machine; ``spark`` shares the work out over a Spark cluster."""

    EMBEDDED = "embedded"
    SPARK = "spark"
