"""Keeps a run in an object store while its ranks work in local folders; collective, and with one outcome for all."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from configs.errors import ConfigError, DataError
from configs.schema import RunConfig
from configs.url import is_url
from train.distributed.collectives import control_group, on_all_ranks
from train.distributed.heartbeat import heartbeating
from train.run_dir.remote_copy import Files, RemoteRun


class ObjectStoreError(ConfigError):
    """The object store did not take or give what it was asked for; told by the client's own words."""


class RunSync:
    """The ranks of a machine share a folder; the first of them is_node_leader. Rank 0 sends what is not a file of a
    rank."""

    def __init__(self, config: RunConfig, heartbeat: Callable[[], None], reader: str = "") -> None:
        """``heartbeat`` is called from time to time while files are sent and fetched. Collective."""
        self.remote = RemoteRun(config, reader)
        self.rank, self.num_ranks = dist.get_node_local_rank(0), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._heartbeat, self._group = heartbeat, control_group()
        self._is_reachable = True

    @property
    def is_node_leader(self) -> bool:
        """Whether this rank does what is done once in each folder."""
        return self.rank == 0

    def on_node_leaders(self, action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
        """Run ``action`` on one rank of each machine, as ``collectives.on_rank_zero`` does on one of all.
        Collective."""
        on_all_ranks(lambda: action() if self.is_node_leader else None, group or self._group)

    def fetch_run(self) -> None:
        """Records and the list of checkpoints, into each folder; rank 0 clears the store of broken sendings."""
        self._on_all_ranks(lambda: self.remote.fetch_records() if self.is_node_leader else None)
        self._on_all_ranks(lambda: self.remote.sweep() if dist.get_rank() == 0 else None)
        self.fetch_list()

    def fetch_list(self) -> None:
        """The list of checkpoints, into each folder. Collective."""
        self._on_all_ranks(lambda: self.remote.fetch_list() if self.is_node_leader else None)

    def fetch_checkpoint(self, name: str, progress: str, *, is_damaged: bool = False) -> None:
        """The files of checkpoint ``name`` that are not here; all of them where those are damaged. ``progress``: its
        ``progress.json`` as rank 0 has it, whatever another machine has listed. Collective."""
        self._on_all_ranks(
            lambda: self.remote.expect_files(name, progress, is_damaged) if self.is_node_leader else None
        )
        self._on_all_ranks(lambda: self.remote.fetch_files(name, self.rank, self.num_ranks))

    def send_records(self) -> None:
        """Collective."""
        self._on_all_ranks(lambda: self.remote.send_records() if dist.get_rank() == 0 else None)

    def send_files(self, name: str, folder: Path, files: Files, group: dist.ProcessGroup) -> None:
        """Send what this rank has written of checkpoint ``name``; all have when it returns. Collective."""
        self._on_all_ranks(lambda: self.remote.send_files(name, folder, files), group)

    def complete(self, name: str, progress: str, keep_last: int, group: dist.ProcessGroup) -> None:
        """Make checkpoint ``name`` whole in the store, and drop the oldest. Collective."""
        self._on_all_ranks(
            lambda: self.remote.complete(name, progress, keep_last) if dist.get_rank() == 0 else None, group
        )

    def drop_steps(self, series: str) -> None:
        """Remove the steps' checkpoints of ``series`` from the store. Collective."""
        self._on_all_ranks(lambda: self.remote.drop_steps(series) if dist.get_rank() == 0 else None)

    def send_last_records(self) -> None:
        """What an error left to send, rank 0 alone: the others may be gone. The error that is under way stays the one
        that ends the run."""
        if dist.get_rank() == 0 and self._is_reachable:
            try:
                with heartbeating(self._heartbeat):
                    self.remote.send_records()
            except (DataError, OSError) as error:
                print(f"warning: the last lines of metrics.jsonl were not sent: {error}", file=sys.stderr, flush=True)

    def _on_all_ranks(self, action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
        """Only a rank that is at work itself beats: those that wait for it must not hide that it hangs."""

        def beating() -> None:
            with heartbeating(self._heartbeat):
                action()

        try:
            on_all_ranks(beating, group or self._group)
        except ConfigError as error:
            self._is_reachable = False
            raise ObjectStoreError(str(error)) from error


def run_sync_of(config: RunConfig, heartbeat: Callable[[], None], reader: str = "") -> RunSync | None:
    """None where ``run_dir`` is a folder, which all ranks share. Collective."""
    return RunSync(config, heartbeat, reader) if is_url(config.run_dir) else None


@contextmanager
def synced_run(config: RunConfig, heartbeat: Callable[[], None]) -> Iterator[RunSync | None]:
    """Fetch what the store holds of the run, and send its records at the end, also when that is an error."""
    sync = run_sync_of(config, heartbeat)
    if sync is None:
        yield None
        return
    sync.fetch_run()
    try:
        yield sync
    except BaseException:
        sync.send_last_records()
        raise
    sync.send_records()
