"""Stop signals: remembered when they come, agreed by all ranks at a step boundary."""

import signal
from types import FrameType

import torch
import torch.distributed as dist

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
"""Sent by torchrun and preemption, by Ctrl-C, by Slurm before the time limit, by a terminal that goes."""


def answered_signals() -> list[signal.Signals]:
    """:data:`SIGNALS` without SIGHUP where it is ignored: under ``nohup`` a run goes on when its terminal goes."""
    is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if not (is_nohup and number == signal.SIGHUP)]


def release_stop_signals() -> None:
    """Let :data:`SIGNALS` reach this process, those too that waited since it was started (``launch.command``)."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class StopVote:
    """Whether any rank was asked to stop; a context that takes :data:`SIGNALS` over while it lasts.

    A vote is cast at each step boundary and read at the next one, so that no rank waits for it.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        """``group``: of the CPU and of its own; nothing else may use it."""
        self._group = group
        self._is_requested = False
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._handlers: dict[int, object] = {}

    @property
    def is_requested(self) -> bool:
        """Whether this rank was asked; others may not have been, or not yet."""
        return self._is_requested

    def is_agreed(self) -> bool:
        """The outcome of the vote that was cast at the boundary before, the same on every rank. Collective."""
        if self._group.size() == 1:
            return self._is_requested
        outcome = self._outcome()
        if not outcome:
            ballot = torch.tensor([int(self._is_requested)])
            work = dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
            assert work is not None, "an asynchronous collective gives a handle"
            self._pending = (work, ballot)
        return outcome

    def _outcome(self) -> bool:
        if self._pending is None:
            return False
        work, ballot = self._pending
        self._pending = None
        work.wait()
        return bool(ballot.item())

    def __enter__(self) -> "StopVote":
        self._handlers = {number: signal.signal(number, self._request) for number in answered_signals()}
        release_stop_signals()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Give the signals back; a vote under way is waited for, unless a failed rank may never answer it."""
        if kind is None:
            self._outcome()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._is_requested = True
