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
from models.collectives import Collectives
from train.evaluation.ranking import StopRequested, empty_batch
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

    Collective; the same on every rank. Raises :class:`StopRequested` on all, between two batches, where one was asked
    to stop.
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
    errors = []
    while True:
        batch = next(batches, None)
        is_more, is_stop = _any((batch is not None, is_stop_requested()), state.collectives, state.device)
        if is_stop:
            raise StopRequested
        if not is_more:
            break
        errors.append(state.collectives.gather(_errors_of(state, config, batch)).cpu().numpy())
    _, scale = manifest.features[config.label].shift_and_scale
    return errors_as_metrics(np.concatenate(errors or [np.zeros(0)]) * scale)


def errors_as_metrics(errors: np.ndarray) -> dict[str, float]:
    """``rmse`` and ``mae`` of ``errors`` [N]. The sums do not round, so that no order of them matters."""
    count = max(len(errors), 1)
    return {
        "rmse": math.sqrt(math.fsum(np.square(errors)) / count),
        "mae": math.fsum(np.abs(errors)) / count,
    }


def _errors_of(state: TrainState, config: RunConfig, batch: EvaluationBatch | None) -> Tensor:
    """Of this rank's targets, float64 ``[B]``, in the unit in which the model is trained. Collective."""
    local = empty_batch(state.device) if batch is None else batch.to(state.device)
    found = state.model(local.history, local.target, is_training=False)
    if batch is None:
        return torch.zeros(0, dtype=torch.float64, device=state.device)
    assert found.offset is not None, "a model of users has an offset"
    score = ordered_sum(found.query.double() * found.candidate_vector.double()) + found.offset.double()
    predicted = torch.sigmoid(score) if config.model.is_probability else score
    return predicted - local.target_features[config.label].double()


def _any(values: tuple[bool, ...], collectives: Collectives, device: torch.device) -> list[bool]:
    """For each of ``values`` whether it is so on any rank, by one collective."""
    return [bool(value) for value in collectives.max(torch.tensor(values, dtype=torch.int64, device=device)).tolist()]
