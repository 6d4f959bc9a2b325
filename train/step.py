"""One training step: forward, backward with the tables' update inside, the dense update."""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.batch import SequenceBatch
from train.state import TrainState


@dataclass(slots=True)
class StepMetrics:
    """What a step tells."""

    loss: Tensor
    num_tokens: int
    """Events of this rank's batch with another before them: the predictions, unless some events are hidden."""
    is_finite: bool
    """Whether loss and gradients were; if not, the step has changed nothing."""


def train_step(state: TrainState, batch: SequenceBatch) -> StepMetrics:
    """Train on one global batch, of which ``batch`` is this rank's part. Collective.

    The random numbers of dropout are a function of (seed, step, rank): a resumed run draws the same.
    """
    torch.manual_seed(zlib.crc32(f"{state.seed}/{state.step}/{state.collectives.rank}".encode()))
    state.model.train()
    state.schedule.apply(state.step)
    state.optimizer.zero_grad(set_to_none=True)
    loss, reported = state.objective(state.model, batch.to(state.device), state.step)
    state.nonfinite.watch(reported)
    loss.backward()
    is_finite = state.nonfinite.is_finite()  # waits for the device
    if is_finite:
        state.optimizer.step()
    return StepMetrics(reported, batch.num_tokens - batch.num_users, is_finite)
