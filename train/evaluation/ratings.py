"""How far predicted numbers, such as ratings, are from those of the targets: RMSE and MAE, the same on any number of
ranks.

B targets of a batch, N of all ranks, D the width of the model.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from configs.schema import RunConfig
from data_pipeline.batch import EvaluationBatch
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest
from data_pipeline.stream.sequence_stream import evaluation_batches
from train.evaluation.ranking import batches_of_all_ranks
from train.state import TrainState
from train.top_items import ordered_sum


@torch.no_grad()
def rating_errors(
    state: TrainState,
    config: RunConfig,
    manifest: Manifest,
    subset: Subset,
    is_stop_requested: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """``rmse`` and ``mae`` over the targets of ``subset``, those that are ranked, in the unit of the log; of labels
    that are 0 or 1 also ``auc``, and where the model predicts probabilities ``log_loss``.

    Collective; the same on every rank. Raises as :func:`train.evaluation.ranking.rank_targets`.
    """
    state.model.eval()
    batches = evaluation_batches(
        config.data,
        subset,
        batch_size=config.evaluation.batch_size,
        rank=state.collectives.rank,
        world_size=state.collectives.world_size,
        features=config.features_of_events,
    )
    found = [
        state.collectives.gather(_predicted_and_label(state, config, local)).cpu().numpy()
        for local in batches_of_all_ranks(batches, state.collectives, state.device, is_stop_requested)
    ]
    predicted, label = np.concatenate([np.zeros((0, 2)), *found]).T
    shift, scale = manifest.features[config.label].shift_and_scale
    errors = errors_as_metrics((predicted - label) * scale)
    raw = np.round(label * scale + shift, 6)  # a label was kept in float32
    if not np.isin(raw, (0, 1)).all():
        return errors
    scored = {"auc": auc(predicted, raw == 1)}
    if config.model.is_probability and (shift, scale) == (0.0, 1.0):
        scored["log_loss"] = log_loss(predicted, raw == 1)
    return errors | {name: value for name, value in scored.items() if not math.isnan(value)}


def errors_as_metrics(errors: np.ndarray) -> dict[str, float]:
    """``rmse`` and ``mae`` of ``errors`` [N]. The sums do not round, so that no order of them matters."""
    count = max(len(errors), 1)
    return {
        "rmse": math.sqrt(math.fsum(np.square(errors)) / count),
        "mae": math.fsum(np.abs(errors)) / count,
    }


def auc(score: np.ndarray, is_positive: np.ndarray) -> float:
    """Share of the pairs of a positive and a negative of [N] in which the positive has the greater score, pairs of
    equal ones counting half (Hanley and McNeil, 1982); NaN where all are of one kind. The same in any order."""
    num_positive = int(is_positive.sum())
    num_pairs = num_positive * (len(score) - num_positive)
    if not num_pairs:
        return math.nan
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    doubled_rank = 2 * np.cumsum(counts) - counts + 1  # whole numbers, also of ties
    doubled_sum = int(doubled_rank[place[is_positive]].sum()) - num_positive * (num_positive + 1)
    return doubled_sum / 2 / num_pairs


def log_loss(probability: np.ndarray, is_positive: np.ndarray) -> float:
    """Mean of -log of the ``probability`` [N] of what happened, in nats; NaN of none. The same in any order."""
    if not len(probability):
        return math.nan
    of_truth = np.where(is_positive, probability, 1 - probability)
    return -math.fsum(np.log(np.maximum(of_truth, np.finfo(np.float64).tiny))) / len(probability)


def _predicted_and_label(state: TrainState, config: RunConfig, local: EvaluationBatch) -> Tensor:
    """Of this rank's targets, float64 ``[B, 2]``, in the unit in which the model is trained. Collective."""
    found = state.model(local.history, local.target, is_training=False)
    if not len(local.target):
        return torch.zeros(0, 2, dtype=torch.float64, device=state.device)
    assert found.offset is not None, "a model of users has an offset"
    score = ordered_sum(found.query.double() * found.candidate_vector.double()) + found.offset.double()
    predicted = torch.sigmoid(score) if config.model.is_probability else score
    return torch.stack([predicted, local.target_features[config.label].double()], 1)
