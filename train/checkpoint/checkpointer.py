"""Checkpoints: written beside while training goes on, renamed when whole, restored under the same or another plan.

Under RUN/checkpoints: ``step-00000500`` folders, and ``best``. A folder named ``*.partial`` is never read.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from configs.errors import ConfigError, DataError
from configs.schema import CheckpointConfig
from train.checkpoint.checksummed_files import SummedWriter, damage_of, read_progress, write_politely
from train.checkpoint.state_dict import make_optimizer_state, model_of, not_finite_in, optimizer_of
from train.distributed.collectives import control_group, on_rank_zero
from train.progress import PROGRESS, RunProgress
from train.run_dir.remote_copy import CHECKPOINTS
from train.run_dir.sync import ObjectStoreError, RunSync
from train.state import TrainState
from train.supervision.rank_status import CHECKPOINT_THREAD

BEST = "best"
REPLACED = ".replaced.partial"
"""Ends the name of a checkpoint while a newer one takes its place."""


class DiskCheckpointer:
    """Saves every ``every_steps`` and keeps the last ``keep_last``, and the best model apart.

    A save copies the tensors into memory that is kept for it, and goes on on a thread, with a process group of its
    own; the next save waits for it. A context: left without an error, it waits for the last save.
    """

    def __init__(
        self,
        run_dir: str | Path,
        config: CheckpointConfig,
        heartbeat: Callable[[], None] = lambda: None,
        sync: RunSync | None = None,
    ) -> None:
        """``heartbeat`` is called from time to time while files are read and written; ``sync``: of a run that is
        kept in an object store, of whose checkpoints ``run_dir`` holds the list. Collective."""
        self.folder, self.config, self._heartbeat, self._sync = Path(run_dir) / CHECKPOINTS, config, heartbeat, sync
        self._shown = self.folder if sync is None else sync.remote.place / CHECKPOINTS
        self._on_leaders = on_rank_zero if sync is None else sync.on_node_leaders
        self._group = control_group()
        self._stager = DefaultStager(StagingOptions(torch.cuda.is_available(), False, False, False))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=CHECKPOINT_THREAD, initializer=write_politely)
        self._pending: Future[None] | None = None
        self._name = ""

    def __enter__(self) -> "DiskCheckpointer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.wait()
        self._thread.shutdown(wait=kind is None)

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is saved."""
        return step % self.config.every_steps == 0

    def save(self, state: TrainState, progress: RunProgress) -> None:
        """Save everything under ``step-*`` and drop the oldest. Collective."""
        self._write(f"step-{state.step:08d}", state, progress)

    def save_best(self, state: TrainState, progress: RunProgress) -> None:
        """Replace ``best``. Collective."""
        self._write(BEST, state, progress)

    def wait(self) -> None:
        """Until the last save is whole. Raises :class:`ConfigError` on every rank if it could not be written."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except (CheckpointException, ConfigError, OSError) as error:
            if dist.get_rank() == 0:
                shutil.rmtree(self.folder / f"{self._name}.partial", ignore_errors=True)
            whole = self.steps()
            kept = f"{self._shown / whole[-1].name} is whole" if whole else "there is none before it"
            hint = "" if isinstance(error, ObjectStoreError) else ". Make room and start the same command again"
            raise ConfigError(
                f"the checkpoint {self._shown / self._name} could not be written: {_reason(error)}; {kept}{hint}"
            ) from error

    def steps(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        whole = self.folder.glob(f"step-*/{PROGRESS}")
        return sorted(path.parent for path in whole if not path.parent.name.endswith(".partial"))

    def restore_latest(self, state: TrainState) -> RunProgress:
        """Load the newest undamaged checkpoint, if any, into ``state``; return how far the run was. Collective.

        A damaged one is told and passed over; :class:`DataError` where all are.
        """
        self.wait()
        self._on_leaders(self._finish_replacements)
        found = self.steps()
        if found:
            make_optimizer_state(state)
        for folder in reversed(found):
            damage = self._load(folder, model_of(state) | optimizer_of(state), state)
            if not damage:
                state.optimizer.post_load_state_dict()  # DCP has filled the state's own tensors in place
                state.step, progress = read_progress(folder)
                return progress
            if dist.get_rank() == 0:
                print(f"warning: {self._shown / folder.name} is damaged and passed over: {damage}", flush=True)
        if found:
            raise DataError(f"no checkpoint in {self._shown} is undamaged; remove them to start the run anew")
        return RunProgress()

    def restore_best(self, state: TrainState) -> RunProgress:
        """Load the best model into ``state``, its optimizer left alone: for ranking. Collective."""
        self.wait()
        self._on_leaders(self._finish_replacements)
        folder = self.folder / BEST
        if not (folder / PROGRESS).is_file():
            raise DataError(f"{self._shown / BEST} holds no checkpoint; train this run_dir first")
        damage = self._load(folder, model_of(state), state)
        if damage:
            raise DataError(f"{self._shown / BEST} is damaged: {damage}")
        state.step, progress = read_progress(folder)
        return progress

    def _load(self, folder: Path, tensors: dict[str, Any], state: TrainState) -> str:
        """Fill ``tensors``, which are those of ``state``; what is wrong with them or their files, empty if nothing,
        the same on every rank. Collective."""
        damage = self._damage_of(folder)
        if damage:
            return damage
        try:
            dcp.load(tensors, checkpoint_id=folder)
        except CheckpointException as error:  # on every rank
            return _reason(error)
        state.model.load_state_dict(tensors["model"])
        damage = self._agreed(not_finite_in(tensors))
        return damage and f"not finite: {damage}"

    def _damage_of(self, folder: Path) -> str:
        """What is wrong with the files of ``folder``, those of a synced_run run being fetched first. Collective."""
        sync = self._sync
        if sync is None:
            return self._agreed(damage_of(folder, dist.get_rank(), dist.get_world_size(), self._heartbeat))
        sync.fetch_checkpoint(folder.name)
        damage = self._agreed(damage_of(folder, sync.rank, sync.num_ranks, self._heartbeat))
        if damage:  # of the copy, or on the way
            sync.fetch_checkpoint(folder.name, is_damaged=True)
            damage = self._agreed(damage_of(folder, sync.rank, sync.num_ranks, self._heartbeat))
        return damage

    def _agreed(self, found: list[str]) -> str:
        """What any rank has found. Collective."""
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, found, group=self._group)
        return ", ".join(sorted({each for part in parts for each in part}))

    def _write(self, name: str, state: TrainState, progress: RunProgress) -> None:
        self.wait()
        self._name, partial = name, self.folder / f"{name}.partial"
        self._on_leaders(lambda: _make_empty(partial))
        tensors: Any = model_of(state) | optimizer_of(state)
        if self.config.asynchronous:
            tensors = self._stager.stage(tensors)  # into the memory of the save before
        document = {"step": state.step, **asdict(progress)}
        self._pending = self._thread.submit(self._complete, name, tensors, document)
        if not self.config.asynchronous:
            self.wait()

    def _complete(self, name: str, tensors: dict[str, Any], document: dict[str, Any]) -> None:
        """On the thread: write the tensors, then make the checkpoint whole. Collective over its own group; an error
        of one rank is raised on all."""
        writer = SummedWriter(self.folder / f"{name}.partial", self._heartbeat)
        dcp.save(tensors, storage_writer=writer, process_group=self._group)
        if self._sync is not None:
            self._sync.send_files(name, self.folder / f"{name}.partial", writer.sums(), self._group)
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, writer.sums(), group=self._group)
        files = {file: found for part in parts for file, found in part.items()}
        progress = json.dumps({**document, "files": files})
        if self._sync is not None:
            self._sync.complete(name, progress, self.config.keep_last, self._group)
        self._on_leaders(lambda: self._make_whole(name, progress), self._group)

    def _make_whole(self, name: str, progress: str) -> None:
        """The last of the files, then the name; the oldest checkpoints go."""
        partial = self.folder / f"{name}.partial"
        (partial / PROGRESS).write_text(progress)
        self._replace(partial, self.folder / name)
        for old in self.steps()[: -self.config.keep_last]:
            shutil.rmtree(old)

    def _replace(self, partial: Path, final: Path) -> None:
        """Put ``partial`` in the place of ``final``; a kill in between leaves one of the two for the next start."""
        old = final.with_name(f"{final.name}{REPLACED}")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def _finish_replacements(self) -> None:
        """Bring back what a kill in the middle of :meth:`_replace` took away."""
        for old in self.folder.glob(f"*{REPLACED}"):
            final = old.with_name(old.name.removesuffix(REPLACED))
            if final.exists():
                shutil.rmtree(old)
            else:
                old.rename(final)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _reason(error: BaseException) -> str:
    """The error behind DCP's, which wraps one a rank."""
    if isinstance(error, CheckpointException):
        return "; ".join(sorted({str(wrapped[0]) for wrapped in error.failures.values()}))
    return str(error)
