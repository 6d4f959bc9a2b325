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
            warmup_steps=(0, COUNT),
            final_lr_fraction=(0, 1),
        )
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name}={getattr(self, name)} must lie in [0, 1)")
