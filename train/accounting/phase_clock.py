"""Where the time of a rank goes: phases that exclude each other on one clock, so that they sum to it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum


class Phase(str, Enum):
    """What a rank can be at; one thing at a time. docs/cost.md says what belongs to which."""

    START = "start"
    DATA_WAIT = "data_wait"
    LOOKUP = "lookup"
    ENCODER = "encoder"
    LOSS = "loss"
    COMMUNICATION = "communication"
    OPTIMIZER = "optimizer"
    VALIDATION = "validation"
    CHECKPOINTS = "checkpoints"
    RANKING = "ranking"
    BASELINES = "baselines"
    OTHER = "other"


TRAINING = (
    Phase.DATA_WAIT,
    Phase.LOOKUP,
    Phase.ENCODER,
    Phase.LOSS,
    Phase.COMMUNICATION,
    Phase.OPTIMIZER,
)
"""The phases of the steps themselves, the wait for their batches included: what speed and utilisation are of."""


class PhaseClock:
    """Counts the time since its making for the innermost phase that is under way.

    Only the thread that trains changes phases, and, while it waits in backward, autograd's; any thread may read. On
    a GPU nothing waits for the device: a phase has the time in which the host was at it.
    """

    def __init__(self, early_s: float = 0.0) -> None:
        """``early_s``: of the start, that had passed before."""
        self._last_s, self._early_s = time.perf_counter(), early_s
        self._seconds = {phase: early_s * (phase is Phase.START) for phase in Phase}
        self._stack = [Phase.START]
        self._step_depth = 0
        self._lock = threading.Lock()

    def limit_early(self, most_s: float) -> None:
        """Only the last ``most_s`` seconds are this session's, as far as they lie before the clock's making."""
        with self._lock:
            self._count()
            excess_s = min(max(sum(self._seconds.values()) - most_s, 0.0), self._early_s)
            self._seconds[Phase.START] -= excess_s
            self._early_s -= excess_s

    def align(self, total_s: float) -> None:
        """Count so much from here on as ``total_s`` says: ranks of one session are not started at the same moment."""
        with self._lock:
            self._count()
            self._seconds[Phase.START] += total_s - sum(self._seconds.values())

    def begin_work(self) -> None:
        """The start is over: what is no other phase is :attr:`Phase.OTHER` from here on."""
        with self._lock:
            self._count()
            self._stack[0] = Phase.OTHER

    def total_s(self) -> float:
        """Of all phases."""
        return sum(self.seconds().values())

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """The block is ``phase``; the one around it goes on after it."""
        with self._lock:
            self._count()
            self._stack.append(phase)
        try:
            yield
        finally:
            with self._lock:
                self._count()
                self._stack.pop()

    @contextmanager
    def step(self) -> Iterator[None]:
        """The block is a training step: it begins as the optimizer's, and :meth:`switch` says what comes next."""
        with self.phase(Phase.OPTIMIZER):
            self._step_depth = len(self._stack)
            try:
                yield
            finally:
                self._step_depth = 0

    def switch(self, phase: Phase) -> None:
        """The step goes on as ``phase``. Nothing outside of a step, such as while a model is ranked."""
        if len(self._stack) == self._step_depth:
            with self._lock:
                self._count()
                self._stack[-1] = phase

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """The block talks to other ranks, which is a phase of its own within a step alone."""
        if len(self._stack) != self._step_depth:
            yield
            return
        with self.phase(Phase.COMMUNICATION):
            yield

    def seconds(self) -> dict[Phase, float]:
        """By phase, up to now."""
        with self._lock:
            self._count()
            return dict(self._seconds)

    def _count(self) -> None:
        now_s = time.perf_counter()
        self._seconds[self._stack[-1]] += now_s - self._last_s
        self._last_s = now_s
