"""How weights are updated."""

from dataclasses import dataclass
from enum import Enum

from configs.bounds import COUNT, TINY, check_bounds
from configs.errors import require


class TableOptimizer(str, Enum):
    """Update rule of the embedding tables."""

    ROWWISE_ADAGRAD = "rowwise_adagrad"
    ADAGRAD = "adagrad"
    SGD = "sgd"
    ADAM = "adam"


class RateSchedule(str, Enum):
    """How both learning rates fall after the warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    INVERSE_SQRT = "inverse_sqrt"
    CONSTANT = "constant"


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW for the dense part, ``table`` for the embedding tables; both follow one schedule."""

    lr: float = 1e-3
    """Peak learning rate of the dense part, which AdamW updates."""
    weight_decay: float = 0.0
    """Weight decay of the dense part."""
    table_weight_decay: float = 0.0
    """Weight decay of the tables' rows; rowwise_adagrad applies it to the rows of a step, adam on a CPU to all."""
    beta1: float = 0.9
    """Decay of AdamW's mean of the gradients."""
    beta2: float = 0.98
    """Decay of AdamW's mean of the squared gradients."""
    table: TableOptimizer = TableOptimizer.ROWWISE_ADAGRAD
    """Update rule of the embedding tables."""
    table_lr: float = 0.05
    """Peak learning rate of the embedding tables."""
    schedule: RateSchedule = RateSchedule.COSINE
    """How both rates fall after the warm-up."""
    clip_norm: float = 0.0
    """Largest norm of the gradients of a step, over tables and dense part together; above it all of them are scaled
    down to it; 0: they are taken as they are."""
    ema_decay: float = 0.0
    """Decay of a moving average of all weights, which is then evaluated, kept as the best and the final model, and
    shipped; 0: the weights themselves are."""
    warmup_steps: int = 100
    """Steps in which both rates rise from 0 to their peak."""
    final_lr_fraction: float = 0.1
    """Share of the peak rates at the end of cosine and linear, and the least of inverse_sqrt."""

    def __post_init__(self) -> None:
        check_bounds(
            "optimizer.",
            self,
            lr=(TINY, 1e3),
            table_lr=(TINY, 1e3),
            weight_decay=(0, 1e3),
            table_weight_decay=(0, 1e3),
            clip_norm=(0, 1e9),
            warmup_steps=(0, COUNT),
            final_lr_fraction=(0, 1),
        )
        self._check_table_weight_decay()
        for name in ("beta1", "beta2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name}={getattr(self, name)} must lie in [0, 1)")

    def _check_table_weight_decay(self) -> None:
        can_decay = self.table in (TableOptimizer.ROWWISE_ADAGRAD, TableOptimizer.ADAM)
        require(
            can_decay or not self.table_weight_decay,
            f"optimizer.table_weight_decay={self.table_weight_decay}: fbgemm ignores the weight decay of "
            f"optimizer.table={self.table.value}; set optimizer.table=rowwise_adagrad or adam, or "
            f"optimizer.table_weight_decay=0",
        )
