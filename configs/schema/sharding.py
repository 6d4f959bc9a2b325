"""How the embedding tables are placed on ranks."""

from dataclasses import dataclass
from enum import Enum


class Sharding(str, Enum):
    """How TorchRec cuts a table over ranks; ``planner`` lets TorchRec choose."""

    PLANNER = "planner"
    TABLE_WISE = "table_wise"
    ROW_WISE = "row_wise"
    COLUMN_WISE = "column_wise"
    DATA_PARALLEL = "data_parallel"


@dataclass(kw_only=True, slots=True)
class ShardingConfig:
    """How the tables are placed on ranks."""

    strategy: Sharding = Sharding.PLANNER
    """How TorchRec cuts a table over ranks; planner lets TorchRec choose."""
