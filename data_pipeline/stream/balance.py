"""How evenly the tokens of a step lie on ranks: the slowest rank is the one that the others wait for."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.stream.order import bounds


@dataclass(frozen=True, slots=True)
class Imbalance:
    """Tokens of the fullest rank over the mean of the ranks; 1 is even, the number of ranks is one rank with all."""

    mean: float
    """Over steps."""
    worst: float
    """Of any step."""


def shard_imbalance(tokens: np.ndarray, world_size: int) -> Imbalance:
    """Imbalance over ``world_size`` ranks from the tokens of every step and data shard, [S, L]; a rank owns whole
    data shards."""
    edges = bounds(tokens.shape[1], world_size)
    return rank_imbalance(np.add.reduceat(tokens, edges[:-1], axis=1))


def rank_imbalance(tokens: np.ndarray) -> Imbalance:
    """Imbalance from the tokens of every step and rank, [S, W]; steps without tokens keep nobody waiting."""
    tokens = tokens[tokens.sum(axis=1) > 0]
    if not len(tokens):
        return Imbalance(1.0, 1.0)
    ratios = tokens.max(axis=1) / tokens.mean(axis=1)
    return Imbalance(float(ratios.mean()), float(ratios.max()))
