"""Where the time of a real ``train_step`` goes, by marks that hooks set; on a GPU each mark waits for the device."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from data_pipeline.batch import SequenceBatch
from train.export.vectors import recommender_of
from train.state import TrainState
from train.step import train_step


@dataclass(slots=True)
class PhaseClock:
    """Seconds by phase; a mark ends the phase that it names."""

    is_on_gpu: bool
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    last: float = field(default_factory=time.perf_counter)

    def mark(self, phase: str) -> None:
        """Count the time since the last mark for ``phase``."""
        if self.is_on_gpu:
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now


def phase_seconds(state: TrainState, batches: Iterator[SequenceBatch], num_steps: int) -> dict[str, float]:
    """Mean seconds of a step, by phase in the order in which they run; trains ``state``.

    lookup: unique ids, tables, gathers. loss: for the full softmax its gradients too, they are taken on the way.
    loss_backward: down to the queries. tables_backward: what remains below the encoder, the tables' update included.
    """
    clock = PhaseClock(state.device.type == "cuda")
    with _hooked(state, clock) as timed:
        for _ in range(num_steps):
            batch = next(batches)
            clock.mark("data")
            train_step(timed, batch)
            clock.mark("optimizer")
            timed.step += 1
    state.step = timed.step
    return {phase: seconds / num_steps for phase, seconds in clock.seconds.items()}


@contextmanager
def _hooked(state: TrainState, clock: PhaseClock) -> Iterator[TrainState]:
    recommender = recommender_of(state)
    encoder = recommender.get_submodule("encoder")

    def before_encoder(_: object, inputs: tuple[Any, ...]) -> None:
        clock.mark("lookup")
        inputs[0].register_hook(lambda grad: clock.mark("encoder_backward"))

    def after_encoder(_: object, inputs: object, query: Tensor) -> None:
        clock.mark("encoder")
        query.register_hook(lambda grad: clock.mark("loss_backward"))

    handles = [
        recommender.register_forward_pre_hook(lambda *_: clock.mark("prepare")),
        encoder.register_forward_pre_hook(before_encoder),
        encoder.register_forward_hook(after_encoder),
    ]
    try:
        objective = _marked(state.objective, clock, "loss")
        optimizer = _MarkedOptimizer(state.optimizer, clock)
        yield replace(state, objective=objective, optimizer=optimizer)  # type: ignore[arg-type]
    finally:
        for handle in handles:
            handle.remove()


def _marked(function: Callable[..., Any], clock: PhaseClock, phase: str) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        result = function(*arguments)
        clock.mark(phase)
        return result

    return call


class _MarkedOptimizer:
    """The optimizer's two calls of a step; backward ends where ``step`` begins."""

    def __init__(self, optimizer: Any, clock: PhaseClock) -> None:
        self.optimizer, self.clock = optimizer, clock

    def zero_grad(self, set_to_none: bool) -> None:
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        self.clock.mark("tables_backward")
        self.optimizer.step()
