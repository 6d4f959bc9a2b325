"""Tells the clock which part of a step is under way: hooks on the encoder, and collectives that say so."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from train.accounting.phase_clock import Phase, PhaseClock
from train.distributed.collectives import ProcessGroupCollectives


def time_encoder(encoder: nn.Module, clock: PhaseClock) -> None:
    """Let a training step's forward and backward pass through ``encoder`` be told to ``clock``.

    A step is at the tables' rows until the encoder begins, at the loss when it is over; backward goes the same way
    back. The hooks look at no value.
    """

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        clock.switch(Phase.ENCODER)
        _when_gradient_comes(inputs[0], clock, Phase.LOOKUP)

    def after(_: nn.Module, inputs: object, query: Tensor) -> None:
        clock.switch(Phase.LOSS)
        _when_gradient_comes(query, clock, Phase.ENCODER)

    encoder.register_forward_pre_hook(before)
    encoder.register_forward_hook(after)


def _when_gradient_comes(tensor: Tensor, clock: PhaseClock, phase: Phase) -> None:
    if tensor.requires_grad:
        tensor.register_hook(lambda gradient: clock.switch(phase))


class TimedCollectives(ProcessGroupCollectives):
    """Collectives whose time within a step is communication's."""

    def __init__(self, clock: PhaseClock) -> None:
        super().__init__()
        self._clock = clock

    def gather(self, value: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
        """As :class:`ProcessGroupCollectives`."""
        with self._clock.exchange():
            return super().gather(value, sizes)

    def sum(self, value: Tensor) -> Tensor:
        """As :class:`ProcessGroupCollectives`."""
        with self._clock.exchange():
            return super().sum(value)

    def begin_sum(self, value: Tensor) -> Callable[[], object]:
        """As :class:`ProcessGroupCollectives`; the wait for the result is communication too."""
        wait = super().begin_sum(value)

        def timed() -> object:
            with self._clock.exchange():
                return wait()

        return timed

    def begin_sum_of_own_rows(self, value: Tensor, sizes: Sequence[int]) -> Callable[[], Tensor]:
        """As :meth:`begin_sum`."""
        wait = super().begin_sum_of_own_rows(value, sizes)

        def timed() -> Tensor:
            with self._clock.exchange():
                return wait()

        return timed

    def max(self, value: Tensor) -> Tensor:
        """As :class:`ProcessGroupCollectives`."""
        with self._clock.exchange():
            return super().max(value)

    def exchange(self, value: Tensor, sizes: list[int]) -> Tensor:
        """As :class:`ProcessGroupCollectives`."""
        with self._clock.exchange():
            return super().exchange(value, sizes)
