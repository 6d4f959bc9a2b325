"""Sampled negatives: one shared set a step, the same on every rank, with the probabilities that logQ needs."""

import numpy as np
import torch
from torch import Tensor

from configs.schema import SampledConfig
from models.collectives import Collectives


class NegativeSampler:
    """Draws item ids by ``count ** popularity_exponent`` and, if asked, from the events of the global batch."""

    def __init__(self, config: SampledConfig, counts: np.ndarray, seed: int) -> None:
        """``counts``: training events of every item ``[V]``; read where ``config.needs_counts``."""
        weight = np.maximum(counts.astype(np.float64), 1) ** config.popularity_exponent
        self.cumulative = torch.from_numpy(np.cumsum(weight / weight.sum()))
        frequency = counts / max(counts.sum(), 1)
        num = config.num_negatives + config.in_batch_negatives
        expected = config.num_negatives * weight / weight.sum() + config.in_batch_negatives * frequency
        self.log_q = torch.from_numpy(np.log(np.maximum(expected, 1e-12) / num)).float()
        self.config, self.seed = config, seed

    def draw(self, step: int, target: Tensor, collectives: Collectives) -> Tensor:
        """Item ids ``[num_negatives + in_batch_negatives]``, a function of (seed, step, global batch). Collective
        when ``in_batch_negatives`` is set."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) & 0x7FFF_FFFF_FFFF)
        uniform = torch.rand(self.config.num_negatives, generator=generator, dtype=torch.float64)
        drawn = torch.searchsorted(self.cumulative, uniform).clamp(max=len(self.cumulative) - 1)
        if self.config.in_batch_negatives:
            pool = collectives.gather(target)
            pick = torch.rand(self.config.in_batch_negatives, generator=generator, dtype=torch.float64)
            drawn = torch.cat([drawn, pool[(pick * len(pool)).long()].cpu()]) if len(pool) else drawn
        return drawn.to(target.device)
