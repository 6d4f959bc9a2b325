"""One training step: forward, backward with the tables' update inside, the dense update."""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.batch import SequenceBatch
from train.accounting.phase_clock import Phase
from train.state import TrainState


@dataclass(slots=True)
class StepMetrics:
    """What a step tells."""

    loss: Tensor
    num_samples: int
    """Sequences of this rank's batch."""
    num_tokens: int
    """Events of this rank's batch with another before them: the predictions, unless some events are hidden."""
    is_finite: bool
    """Whether loss and gradients were; if not, the step has changed nothing."""
    gradient_norm: float | None = None
    """Over tables and dense part, before clipping; None where it was not measured."""
    is_clipped: bool | None = None
    """Whether the gradients were scaled down to ``optimizer.clip_norm``; None without one."""


def train_step(state: TrainState, batch: SequenceBatch, *, is_measured: bool = False) -> StepMetrics:
    """Train on one global batch, of which ``batch`` is this rank's part. Collective.

    The random numbers of dropout are a function of (seed, step, rank): a resumed run draws the same. ``is_measured``:
    the norm of the gradients is asked for, which changes nothing else.
    """
    with state.clock.step():
        torch.manual_seed(zlib.crc32(f"{state.seed}/{state.step}/{state.collectives.rank}".encode()))
        state.model.train()
        state.schedule.apply(state.step)
        state.optimizer.zero_grad(set_to_none=True)
        state.clock.switch(Phase.LOOKUP)  # hooks say where the encoder and the loss begin (train.accounting)
        found = state.backward(state.model, state.objective, batch, state.step, is_measured=is_measured)
        state.clock.switch(Phase.OPTIMIZER)
        if found.is_finite:
            state.optimizer.step()
            if state.average is not None:
                state.average.update(state.step)
    num_tokens = batch.num_tokens - batch.num_users
    return StepMetrics(found.loss, batch.num_users, num_tokens, found.is_finite, found.norm, found.is_clipped)
