"""Checkpoints: written beside while training goes on, renamed when whole, restored under the same or another plan.

Under RUN/checkpoints: ``step-00000500`` folders, and ``best``. A folder named ``*.partial`` is never read, and what
has any other name is somebody else's. docs/checkpoint_format.md shows the files.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from configs.atomic_files import json_with_sum, write_atomically
from configs.errors import ConfigError, DataError
from configs.schema import CheckpointConfig
from train.accounting.phase_clock import Phase
from train.checkpoint.checksummed_files import parse_record, record_text, sum_of, write_politely
from train.checkpoint.layout import file_of, share_parts
from train.checkpoint.reader import CheckpointReader, UnusableError
from train.checkpoint.row_fill import RowMaps
from train.checkpoint.safetensors_file import write_tensors
from train.checkpoint.staging import Stage, parts_of
from train.checkpoint.state_dict import (
    RunTensor,
    after_loading,
    average_of,
    make_optimizer_state,
    optimizer_state_of,
    weights_of,
)
from train.distributed.collectives import control_group, from_rank_zero, on_all_ranks, on_rank_zero
from train.progress import PROGRESS, RunProgress
from train.run_dir.checkpoint_folder import (
    BEST,
    FINAL,
    INDEX,
    PARTIAL,
    REPLACED,
    finish_replacements,
    is_step_name,
    remove_checkpoint,
    replace_checkpoint,
    series_of,
    step_name,
)
from train.run_dir.remote_copy import CHECKPOINTS, Files
from train.run_dir.sync import ObjectStoreError, RunSync
from train.state import TrainState
from train.supervision.rank_status import CHECKPOINT_THREAD

READS_OF_BEST = 2
"""A training run may put a better model in its place while it is read."""


@dataclass(slots=True)
class _Save:
    """A save under way, as its thread needs it."""

    name: str
    parts: dict[str, Tensor]
    index: dict[str, Any]
    step: int
    progress: RunProgress


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
        check_writer: Callable[[], None] = lambda: None,
        series: str = "",
    ) -> None:
        """``heartbeat`` is called from time to time while files are read and written; ``sync``: of a run that is
        kept in an object store, of whose checkpoints ``run_dir`` holds the list. ``check_writer`` raises on
        rank 0 where this job may write no more: a checkpoint is not made whole then. ``series``: of the steps'
        checkpoints, the run's own or those of its final fit. Collective."""
        self._series = series
        self._check_writer = check_writer
        self.folder, self.config, self._heartbeat, self.sync = Path(run_dir) / CHECKPOINTS, config, heartbeat, sync
        self._on_leaders = on_rank_zero if sync is None else sync.on_node_leaders
        self._group = control_group()
        self._reader = CheckpointReader(self.folder, heartbeat, sync, self._group)
        self._stage = Stage()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=CHECKPOINT_THREAD, initializer=write_politely)
        self._pending: Future[None] | None = None
        self._name = ""

    def __enter__(self) -> "DiskCheckpointer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.wait()
        self._thread.shutdown(wait=kind is None)

    @property
    def shown(self) -> object:
        """Where the checkpoints are, for messages."""
        return self._reader.shown

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is saved."""
        return step % self.config.every_steps == 0

    def save(self, state: TrainState, progress: RunProgress) -> None:
        """Save everything under ``step-*`` and drop the oldest. Collective."""
        self._write(step_name(state.step, self._series), state, progress)

    def save_best(self, state: TrainState, progress: RunProgress) -> None:
        """Replace ``best``. Collective."""
        self._write(BEST, state, progress)

    def save_final(self, state: TrainState, progress: RunProgress) -> None:
        """Replace ``final``. Collective."""
        self._write(FINAL, state, progress)

    def wait(self) -> None:
        """Until the last save is whole. Raises :class:`ConfigError` on every rank if it could not be written."""
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except (ConfigError, DataError, OSError) as error:
            if dist.get_rank() == 0:
                remove_checkpoint(self.folder / f"{self._name}{PARTIAL}")
            whole = self.steps()
            kept = f"{self._reader.shown / whole[-1].name} is whole" if whole else "there is none before it"
            hint = "" if isinstance(error, ObjectStoreError) else ". Make room and start the same command again"
            raise ConfigError(
                f"the checkpoint {self._reader.shown / self._name} could not be written: {error}; {kept}{hint}"
            ) from error

    def steps(self) -> list[Path]:
        """Whole checkpoints as this rank sees them, oldest first."""
        names = [path.parent.name for path in self.folder.glob(f"*/{PROGRESS}")]
        own = [name for name in names if is_step_name(name) and series_of(name) == self._series]
        return [self.folder / name for name in sorted(own)]

    def has_steps(self) -> bool:
        """Whether there is a whole checkpoint to go back to, the same on every rank. Collective."""
        return from_rank_zero(lambda: bool(self.steps()), self._group)

    def has_best(self) -> bool:
        """Whether ``best`` is whole, the same on every rank. Its files are not read. Collective."""
        return from_rank_zero(lambda: self._whole_name(BEST) == BEST, self._group)

    def has_model(self, name: str) -> bool:
        """Whether ``best`` or ``final`` can be restored, also while it is replaced, the same on every rank.
        Collective."""
        return from_rank_zero(lambda: bool(self._whole_name(name)), self._group)

    def progress_of(self, name: str) -> RunProgress | None:
        """How far the run was at the whole checkpoint ``name``; None where there is none that can be read.
        Collective."""
        self._settle()
        return from_rank_zero(lambda: _progress_in(self.folder / name), self._group)

    def latest_progress(self) -> RunProgress | None:
        """:meth:`progress_of` the newest step. Collective."""
        self._settle()
        return from_rank_zero(lambda: _progress_in(self.steps()[-1]) if self.steps() else None, self._group)

    def sum_of(self, name: str) -> str:
        """XXH3-64 of what makes the checkpoint ``name`` whole, which lists the sums of all its files. Collective."""
        return from_rank_zero(lambda: sum_of((self.folder / name / PROGRESS).read_bytes()), self._group)

    def drop_steps(self) -> None:
        """Remove the steps' checkpoints of this series. Collective."""
        self.wait()
        if self.sync is not None:
            self.sync.drop_steps(self._series)
        self._on_leaders(self._remove_steps)

    def restore_latest(self, state: TrainState) -> RunProgress:
        """Load the newest undamaged checkpoint, if any, into ``state``; return how far the run was. Collective.

        Rank 0 lists the folder and all take what it names: on a shared file system listings differ for seconds. A
        checkpoint that is damaged is told and passed over; :class:`DataError` where all are.
        """
        self._settle()
        names = from_rank_zero(lambda: [path.name for path in self.steps()], self._group)
        if not names:
            return RunProgress()
        make_optimizer_state(state)
        tensors = weights_of(state) + optimizer_state_of(state) + average_of(state)
        for name in reversed(names):
            try:
                record = self._reader.load(name, tensors, state)
            except UnusableError as error:
                if dist.get_rank() == 0:
                    print(f"warning: {self._reader.shown / name} is passed over: {error}", flush=True)
                continue
            after_loading(state)
            return record.progress
        raise DataError(
            f"no checkpoint in {self._reader.shown} can be taken (the warnings say why); nothing was changed. Bring "
            f"an undamaged copy back, or choose a new run_dir to start over"
        )

    def restore_best(self, state: TrainState) -> RunProgress:
        """Load the best model into ``state``, its optimizer left alone: for ranking. Collective.

        Raises :class:`DataError` where there is none, or it is damaged.
        """
        return self.restore(BEST, state)

    def restore(self, name: str, state: TrainState) -> RunProgress:
        """:meth:`restore_best` of the checkpoint ``name``: ``best`` or ``final``. Collective."""
        return self._restore(name, weights_of(state), state)

    def restore_rows(self, name: str, state: TrainState, rows: RowMaps, *, with_optimizer: bool) -> RunProgress:
        """:meth:`restore` into a model whose tables number their rows otherwise; those that ``rows`` does not name
        stay as they are. ``with_optimizer``: its state too, which must have been made. Collective."""
        tensors = weights_of(state) + (optimizer_state_of(state) if with_optimizer else [])
        return self._restore(name, tensors, state, rows)

    def _restore(
        self, name: str, tensors: list[RunTensor], state: TrainState, rows: RowMaps | None = None
    ) -> RunProgress:
        self.wait()
        problem = "it holds no checkpoint"
        for _ in range(READS_OF_BEST):
            found = from_rank_zero(lambda: self._whole_name(name), self._group)
            if found:
                try:
                    return self._reader.load(found, tensors, state, rows).progress
                except UnusableError as error:
                    problem = str(error)
        raise DataError(f"{self._reader.shown / name}: {problem}; start the same `train` command: it makes another")

    def _whole_name(self, model: str) -> str:
        """The folder of ``model`` as this rank sees it, empty if there is none. Another process may be about to
        replace it, or was killed over it; whoever only reads leaves that as it is."""
        names = (model, f"{model}{REPLACED}")
        return next((name for name in names if (self.folder / name / PROGRESS).is_file()), "")

    def _remove_steps(self) -> None:
        for path in filter(_is_ours, self.steps()):
            remove_checkpoint(path)

    def _settle(self) -> None:
        """Nothing is being written any more, nor half replaced. Collective."""
        self.wait()
        self._on_leaders(lambda: finish_replacements(self.folder))

    def _write(self, name: str, state: TrainState, progress: RunProgress) -> None:
        with state.clock.phase(Phase.CHECKPOINTS):
            self._begin(name, state, progress)

    def _begin(self, name: str, state: TrainState, progress: RunProgress) -> None:
        self.wait()
        self._name = name
        self._on_leaders(lambda: _make_empty(self.folder / f"{name}{PARTIAL}"))
        tensors = weights_of(state) + optimizer_state_of(state)
        if is_step_name(name):  # ``best`` and ``final`` are the average
            tensors += average_of(state)
        own, index = share_parts(tensors, self._group)
        # into the memory of the save before; a save that training waits for needs no copy
        parts = self._stage.copy(tensors, own) if self.config.asynchronous else parts_of(tensors, own)
        save = _Save(name, parts, index, state.step, RunProgress(**asdict(progress)))
        self._pending = self._thread.submit(self._complete, save)
        if not self.config.asynchronous:
            self.wait()

    def _complete(self, save: _Save) -> None:
        """On the thread: write the tensors, then make the checkpoint whole. Collective over its own group; an error
        of one rank is raised on all."""
        partial, sync = self.folder / f"{save.name}{PARTIAL}", self.sync
        files: Files = {}
        on_all_ranks(lambda: files.update(self._write_files(save, partial)), self._group)
        if sync is not None:
            sync.send_files(save.name, partial, files, self._group)
        all_files: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(files, all_files, dst=0, group=self._group)
        listed = {file: found for part in all_files or [] for file, found in part.items()}
        text = from_rank_zero(lambda: record_text(save.step, save.progress, listed), self._group)
        on_rank_zero(self._check_writer, self._group)
        if sync is not None:
            sync.complete(save.name, text, self.config.keep_last, self._group)
        self._on_leaders(lambda: self._make_whole(save.name, text), self._group)

    def _write_files(self, save: _Save, partial: Path) -> Files:
        """This rank's files with their sizes and sums."""
        files: Files = {}
        rank = dist.get_rank()
        if save.parts:
            files[file_of(rank)] = list(write_tensors(partial / file_of(rank), save.parts, self._heartbeat))
        if rank == 0:
            content = json_with_sum(save.index, indent=None).encode()
            write_atomically(partial / INDEX, content)
            files[INDEX] = [len(content), sum_of(content)]
        return files

    def _make_whole(self, name: str, text: str) -> None:
        """The last of the files, then the name; the oldest checkpoints go."""
        partial = self.folder / f"{name}{PARTIAL}"
        write_atomically(partial / PROGRESS, text)
        replace_checkpoint(partial, self.folder / name)
        if len(self.steps()) > self.config.keep_last:
            for old in [path for path in self.steps() if _is_ours(path)][: -self.config.keep_last]:
                remove_checkpoint(old)


def _make_empty(folder: Path) -> None:
    """``folder``, without what an earlier session has left of ours."""
    remove_checkpoint(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _progress_in(folder: Path) -> RunProgress | None:
    try:
        return parse_record((folder / PROGRESS).read_text(), folder / PROGRESS).progress
    except (DataError, OSError, UnicodeDecodeError):
        return None


def _is_ours(folder: Path) -> bool:
    """Whether the checkpoint is what its name says: a copy under another name is a person's, and stays."""
    try:
        record = parse_record((folder / PROGRESS).read_text(), folder / PROGRESS)
    except (DataError, OSError, UnicodeDecodeError):
        return False
    return folder.name == step_name(record.step, series_of(folder.name))
