"""Keeps a run in an object store while its ranks work in local folders; collective, and with one outcome for all."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from configs.errors import ConfigError, DataError
from configs.schema import RunConfig
from configs.url import is_url
from train.peers import control_group, on_all_ranks
from train.remote_run import Files, RemoteRun

BEAT_S = 1.0
"""How often a rank says that it gets on while the client, which ends what does not, is at work."""


class StoreError(ConfigError):
    """The object store did not take or give what it was asked for; told by the client's own words."""


class RunMirror:
    """The ranks of a machine share a folder; the first of them leads. Rank 0 sends what is not a file of a rank."""

    def __init__(self, config: RunConfig, beat: Callable[[], None], reader: str = "") -> None:
        """``beat`` is called from time to time while files are sent and fetched. Collective."""
        self.remote = RemoteRun(config, reader)
        self.rank, self.num_ranks = dist.get_node_local_rank(0), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self._beat, self._group = beat, control_group()
        self._is_reachable = True

    @property
    def leads(self) -> bool:
        """Whether this rank does what is done once in each folder."""
        return self.rank == 0

    def lead(self, action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
        """Run ``action`` on one rank of each machine, as ``peers.on_rank_zero`` does on one of all. Collective."""
        on_all_ranks(lambda: action() if self.leads else None, group or self._group)

    def fetch_run(self) -> None:
        """Records and the list of checkpoints, into each folder; rank 0 clears the store of broken sendings."""
        self._together(lambda: self.remote.fetch_records() if self.leads else None)
        self._together(lambda: self.remote.sweep() if dist.get_rank() == 0 else None)
        self.fetch_list()

    def fetch_list(self) -> None:
        """The list of checkpoints, into each folder. Collective."""
        self._together(lambda: self.remote.fetch_list() if self.leads else None)

    def fetch_checkpoint(self, name: str, *, is_damaged: bool = False) -> None:
        """The files of checkpoint ``name`` that are not here; all of them where those are damaged. Collective."""
        if is_damaged:
            self._together(lambda: self.remote.forget_files(name) if self.leads else None)
        self._together(lambda: self.remote.fetch_files(name, self.rank, self.num_ranks))

    def send_records(self) -> None:
        """Collective."""
        self._together(lambda: self.remote.send_records() if dist.get_rank() == 0 else None)

    def send_files(self, name: str, folder: Path, files: Files, group: dist.ProcessGroup) -> None:
        """Send what this rank has written of checkpoint ``name``; all have when it returns. Collective."""
        self._together(lambda: self.remote.send_files(name, folder, files), group)

    def complete(self, name: str, progress: str, keep_last: int, group: dist.ProcessGroup) -> None:
        """Make checkpoint ``name`` whole in the store, and drop the oldest. Collective."""
        self._together(
            lambda: self.remote.complete(name, progress, keep_last) if dist.get_rank() == 0 else None, group
        )

    def send_last_records(self) -> None:
        """What an error left to send, rank 0 alone: the others may be gone. The error that is under way stays the one
        that ends the run."""
        if dist.get_rank() == 0 and self._is_reachable:
            try:
                with _beating(self._beat):
                    self.remote.send_records()
            except (DataError, OSError) as error:
                print(f"warning: the last lines of metrics.jsonl were not sent: {error}", file=sys.stderr, flush=True)

    def _together(self, action: Callable[[], object], group: dist.ProcessGroup | None = None) -> None:
        """Only a rank that is at work itself beats: those that wait for it must not hide that it hangs."""

        def beating() -> None:
            with _beating(self._beat):
                action()

        try:
            on_all_ranks(beating, group or self._group)
        except ConfigError as error:
            self._is_reachable = False
            raise StoreError(str(error)) from error


def mirror_of(config: RunConfig, beat: Callable[[], None], reader: str = "") -> RunMirror | None:
    """None where ``run_dir`` is a folder, which all ranks share. Collective."""
    return RunMirror(config, beat, reader) if is_url(config.run_dir) else None


@contextmanager
def mirrored(config: RunConfig, beat: Callable[[], None]) -> Iterator[RunMirror | None]:
    """Fetch what the store holds of the run, and send its records at the end, also when that is an error."""
    mirror = mirror_of(config, beat)
    if mirror is None:
        yield None
        return
    mirror.fetch_run()
    try:
        yield mirror
    except BaseException:
        mirror.send_last_records()
        raise
    mirror.send_records()


@contextmanager
def _beating(beat: Callable[[], None]) -> Iterator[None]:
    is_over = threading.Event()

    def beat_on() -> None:
        while not is_over.wait(BEAT_S):
            beat()

    thread = threading.Thread(target=beat_on, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
