"""Ends a job that hangs, within ``hardware.timeout_s``, and says which rank hangs it and in what the others wait."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch.distributed as dist

from configs.errors import HUNG_EXIT_CODE
from configs.schema import HardwareConfig
from train.supervision.hang_detector import HangDetector
from train.supervision.rank_status import CodeLocation, RankStatus, current_status, process_of

LOOKS_PER_TIMEOUT = 20
MAX_INTERVAL_S = 5.0
MAX_GAP = 3
"""Intervals that count at most between two looks: this process may have been stopped, or the machine asleep."""
VERDICT = "diagnosis"
ENDS_AT = "ends at"


class Watchdog:
    """A thread of each rank that reports to the others through the store of the process group; a context.

    Told once, on one rank's stderr; then every rank ends at the same moment with ``HUNG_EXIT_CODE``, whatever its
    main thread is in. A rank whose process was stopped is woken to end; one that cannot is killed by those on its
    machine. SingleProcess, a rank is not watched: nobody waits for it.
    """

    def __init__(self, config: HardwareConfig) -> None:
        """The process group is there, and outlives this."""
        self._rank, self._num_ranks = dist.get_rank(), dist.get_world_size()
        self._timeout_s = config.timeout_s
        self._interval_s = min(config.timeout_s / LOOKS_PER_TIMEOUT, MAX_INTERVAL_S)
        patience_s = config.timeout_s - 4 * self._interval_s  # two looks until it is seen, two until the end
        self._detector = HangDetector(self._num_ranks, patience_s, MAX_GAP * self._interval_s)
        self._num_sent = self._num_heartbeats = 0
        self._step_of: Callable[[], int] = lambda: 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def follow(self, step_of: Callable[[], int]) -> None:
        """Let reports tell the step."""
        self._step_of = step_of

    def heartbeat(self) -> None:
        """Work without collectives, such as a block written, gets on."""
        self._num_heartbeats += 1

    def __enter__(self) -> "Watchdog":
        if self._num_ranks > 1:
            shared: Any = dist.distributed_c10d._get_default_store()
            self._store = dist.PrefixStore("watchdog", shared.clone())  # a connection of its own: for another thread
            self._report()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """A rank that failed still counts as one to wait for, until its process has ended."""
        if self._num_ranks > 1:
            self._is_over.set()
            self._thread.join(MAX_INTERVAL_S)  # it may wait for a store whose machine is gone
            if kind is None and not self._thread.is_alive():
                with suppress(dist.DistError):  # the launcher was the first to go: nobody waits for this rank
                    self._report(has_ended=True)

    def _watch(self) -> None:
        """On the thread."""
        while not self._is_over.wait(self._interval_s):
            try:
                self._look()
            except dist.DistError as error:
                print(f"rank {self._rank} is no longer watched for hanging: {error}", file=sys.stderr, flush=True)
                return

    def _look(self) -> None:
        self._report()
        self._detector.look(self._statuses(), time.monotonic())
        diagnosis = self._detector.diagnose()
        if diagnosis and self._store.add(VERDICT, 1) == 1:
            self._store.set(ENDS_AT, str(time.time() + 2 * self._interval_s))
            print(self._hang_message(diagnosis), file=sys.stderr, flush=True)
        if self._store.check([ENDS_AT]):
            self._end()

    def _report(self, has_ended: bool = False) -> None:
        status = current_status(self._num_sent, self._num_heartbeats, self._step_of())
        status.has_ended = has_ended
        self._num_sent += 1
        self._store.set(f"rank {self._rank}", json.dumps(asdict(status)))

    def _statuses(self) -> dict[int, RankStatus]:
        keys = {rank: f"rank {rank}" for rank in range(self._num_ranks)}
        return {rank: _parse_status(self._store.get(key)) for rank, key in keys.items() if self._store.check([key])}

    def _hang_message(self, diagnosis: str) -> str:
        return f"{diagnosis}. The run ends (hardware.timeout_s={self._timeout_s}); the same command starts it again"

    def _end(self) -> None:
        """Never returns. All ranks end at one moment, or the first to go breaks the collectives of the others."""
        silent = self._silent_here()
        _send(silent, signal.SIGCONT)
        left_s = float(self._store.get(ENDS_AT)) - time.time()
        time.sleep(min(max(left_s, 0.0), 2 * self._interval_s))
        _send(silent, signal.SIGKILL)
        os._exit(HUNG_EXIT_CODE)

    def _silent_here(self) -> list[int]:
        """Processes of this machine that do not answer, by their ids."""
        processes = [self._detector.process_of(rank) for rank in self._detector.silent(MAX_GAP * self._interval_s)]
        return [
            int(each[1]) for each in processes if each and each[1] != os.getpid() and each == process_of(int(each[1]))
        ]


def _send(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(process, number)


def _parse_status(text: bytes) -> RankStatus:
    fields = json.loads(text)
    return RankStatus(
        CodeLocation(**fields.pop("location")), CodeLocation(**fields.pop("checkpoint_location")), **fields
    )
