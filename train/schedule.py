"""The learning rates of every step: a linear warm-up, then the course that ``optimizer.schedule`` names."""

import math
from typing import assert_never

from torchrec.optim.keyed import CombinedOptimizer

from configs.schema import OptimizerConfig, RateSchedule


def rate_share(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """Share of the peak rates at ``step`` of ``num_steps``, counted from 0; after ``num_steps`` it stays at its end.

    A pure function, so that a resumed run needs nothing but its step.
    """
    warmup, final = config.warmup_steps, config.final_lr_fraction
    if step < warmup:
        return (step + 1) / warmup
    progress = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
    match config.schedule:
        case RateSchedule.COSINE:
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
        case RateSchedule.LINEAR:
            return final + (1 - final) * (1 - progress)
        case RateSchedule.INVERSE_SQRT:
            return max(final, math.sqrt(max(warmup, 1) / (step + 1)))
        case RateSchedule.CONSTANT:
            return 1.0
        case _ as never:
            assert_never(never)


class Schedule:
    """Sets the rates of both parts of the model."""

    def __init__(self, optimizer: CombinedOptimizer, config: OptimizerConfig, num_steps: int) -> None:
        self.config, self.num_steps = config, num_steps
        self._groups = [(group, name) for name, part in optimizer.optimizers for group in part.param_groups]

    def rates(self, step: int) -> dict[str, float]:
        """The rate of the ``dense`` part and of the ``table`` part at ``step``."""
        share = rate_share(self.config, step, self.num_steps)
        return {"dense": self.config.lr * share, "table": self.config.table_lr * share}

    def apply(self, step: int) -> None:
        """Set every rate; it reaches a fused kernel at the ``zero_grad`` that follows."""
        rates = self.rates(step)
        for group, name in self._groups:
            group["lr"] = rates[name]
