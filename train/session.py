"""What the parts of one session of a run share: its choices, its data, its ranks, and who watches over them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import REQUEUE_EXIT_CODE
from configs.run_dir import local_run_dir
from configs.schema import DataConfig, RunConfig
from data_pipeline.split import HeldOut
from data_pipeline.store.manifest import Manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from train.accounting.ledger import STOPPED, Ledger
from train.accounting.phase_clock import PhaseClock
from train.distributed.collectives import ProcessGroupCollectives
from train.run_dir.identity import mark_stopped
from train.run_dir.sync import RunSync
from train.supervision.stop_signals import StopVote
from train.supervision.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Session:
    """One start of a run; ``config`` names the version of the store that ``manifest`` is of."""

    config: RunConfig
    manifest: Manifest
    device: torch.device
    collectives: ProcessGroupCollectives
    watchdog: Watchdog
    stop: StopVote
    sync: RunSync | None
    check_writer: Callable[[], None]
    """Raises on rank 0 where this job may write in the run's folder no more."""
    ledger: Ledger

    @property
    def clock(self) -> PhaseClock:
        """What this rank is at."""
        return self.ledger.clock

    @property
    def folder(self) -> Path:
        """The local folder of the run."""
        return local_run_dir(self.config)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this rank speaks and writes for all."""
        return self.collectives.rank == 0

    def stream(self, data: DataConfig, held_out: HeldOut = HeldOut.VALID_AND_TEST) -> SequenceStream:
        """The batches of this rank for a model that leaves out ``held_out``."""
        return SequenceStream(
            data,
            seed=self.config.seed,
            rank=self.collectives.rank,
            world_size=self.collectives.world_size,
            features=self.config.features_of_events,
            held_out=held_out,
        )

    def is_stop_requested(self) -> bool:
        """Whether this rank was asked to stop."""
        return self.stop.is_requested

    def say(self, line: str) -> None:
        """Print ``line`` once."""
        if self.is_rank_zero:
            print(line, flush=True)

    def stopped(self, where: str, step: int) -> int:
        """Say how to go on after a stop ``where`` all is saved, and leave a mark for launchers that do not see exit
        codes; the exit code."""
        self.ledger.ended = STOPPED
        if self.is_rank_zero or (self.sync is not None and self.sync.is_node_leader):
            mark_stopped(self.folder, step)
        self.say(f"stopped {where}, saved; the same command with run_dir={self.config.run_dir} continues")
        return REQUEUE_EXIT_CODE
