"""The loss of held-out targets: their cross-entropy over the whole catalogue, whatever the model is trained with.

B queries of all ranks, v items of this rank's slice, D the width.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from data_pipeline.batch import EvaluationBatch
from models.collectives import Collectives
from models.loss.item_shard import slice_of
from train.evaluation.ranking import gathered_queries, scores_of_targets, slice_vectors


@torch.no_grad()
def mean_target_loss(
    model: nn.Module,
    batches: Iterator[EvaluationBatch],
    *,
    num_items: int,
    collectives: Collectives,
    device: torch.device,
    is_stop_requested: Callable[[], bool] = lambda: False,
) -> float:
    """Mean of ``-log softmax(query . item)[target]``; items that the user has seen are candidates too.

    The same on every rank, and on any number of them to rounding. What no longer fits a number is the largest one.
    Collective; raises as :func:`train.evaluation.ranking.rank_targets`.
    """
    model.eval()
    items = slice_of(num_items, collectives)
    vectors = slice_vectors(model, items, device)
    found = [
        _losses(queries.query, queries.target, vectors, items, collectives)
        for queries in gathered_queries(model, batches, collectives, device, is_stop_requested)
    ]
    losses = torch.cat(found).cpu().numpy()
    largest = float(np.finfo(np.float32).max)
    return float(np.nan_to_num(np.sort(losses).mean(), nan=largest, posinf=largest))


def _losses(query: Tensor, target: Tensor, vectors: Tensor, items: range, collectives: Collectives) -> Tensor:
    """Float64 ``[B]`` of ``query`` ``[B, D]``; ``vectors`` ``[v, D]`` of ``items``. Collective."""
    score = query @ vectors.t()
    _, own = scores_of_targets(score, target, items)
    largest = score.amax(1) if len(items) else score.new_full((len(query),), float("-inf"))
    own, largest = collectives.sum(own), collectives.max(largest)
    total = collectives.sum(score.sub_(largest[:, None]).exp_().sum(1, dtype=torch.float64))
    return total.log() + (largest - own).double()
