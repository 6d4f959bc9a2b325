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
    """``rmse`` and ``mae`` over the targets of ``subset``, those that are ranked, in the unit of the log.

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
    errors = [
        state.collectives.gather(_errors_of(state, config, local)).cpu().numpy()
        for local in batches_of_all_ranks(batches, state.collectives, state.device, is_stop_requested)
    ]
    _, scale = manifest.features[config.label].shift_and_scale
    return errors_as_metrics(np.concatenate(errors or [np.zeros(0)]) * scale)


def errors_as_metrics(errors: np.ndarray) -> dict[str, float]:
    """``rmse`` and ``mae`` of ``errors`` [N]. The sums do not round, so that no order of them matters."""
    count = max(len(errors), 1)
    return {
        "rmse": math.sqrt(math.fsum(np.square(errors)) / count),
        "mae": math.fsum(np.abs(errors)) / count,
    }


def _errors_of(state: TrainState, config: RunConfig, local: EvaluationBatch) -> Tensor:
    """Of this rank's targets, float64 ``[B]``, in the unit in which the model is trained. Collective."""
    found = state.model(local.history, local.target, is_training=False)
    if not len(local.target):
        return torch.zeros(0, dtype=torch.float64, device=state.device)
    assert found.offset is not None, "a model of users has an offset"
    score = ordered_sum(found.query.double() * found.candidate_vector.double()) + found.offset.double()
    predicted = torch.sigmoid(score) if config.model.is_probability else score
    return predicted - local.target_features[config.label].double()
