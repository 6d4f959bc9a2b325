"""Reads a checkpoint: one that all ranks agree on, undamaged, into a model of any plan."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors import SafetensorError

from configs.atomic_files import parse_json_with_sum
from configs.errors import DataError
from train.checkpoint.checksummed_files import CheckpointRecord, damage_of, parse_record, sum_of
from train.checkpoint.layout import Index, fill, index_of, misfit
from train.checkpoint.row_fill import RowMaps, fill_rows, misfit_but_rows
from train.checkpoint.state_dict import RunTensor, not_finite_in
from train.distributed.collectives import from_rank_zero
from train.progress import PROGRESS
from train.run_dir.checkpoint_folder import INDEX, is_step_name, series_of, step_name
from train.run_dir.remote_copy import CHECKPOINTS, Files
from train.run_dir.sync import RunSync
from train.state import TrainState


class UnusableError(Exception):
    """A checkpoint cannot be taken, by no rank; the message goes on after its name."""


class CheckpointReader:
    """The checkpoints of one folder. Rank 0 says what is in it; every method is collective."""

    def __init__(
        self, folder: Path, heartbeat: Callable[[], None], sync: RunSync | None, group: dist.ProcessGroup
    ) -> None:
        """``folder`` is ``RUN/checkpoints``; ``heartbeat`` and ``sync`` as of the checkpointer."""
        self.folder, self._heartbeat, self._sync, self._group = folder, heartbeat, sync, group
        self.shown = folder if sync is None else sync.remote.place / CHECKPOINTS

    def load(
        self, name: str, tensors: list[RunTensor], state: TrainState, rows: RowMaps | None = None
    ) -> CheckpointRecord:
        """Fill ``tensors``, those of ``state``; :class:`UnusableError` on every rank for a damaged checkpoint,
        :class:`DataError` for one of another model. ``rows``: where the tables of ``state`` number their rows
        otherwise. Collective."""
        record = self._undamaged(name)
        folder = self.folder / name
        index, problem = read_index(folder / INDEX, record.files, self.shown / name / INDEX)
        if problem := self._agreed([problem] if problem else []):
            raise UnusableError(problem)
        differing = misfit(tensors, index) if rows is None else misfit_but_rows(tensors, index)
        if differences := self._agreed(differing):
            raise DataError(f"{self.shown / name} is of another model: {differences}; {_keys_of(differences)}")

        def read() -> None:
            if rows is None:
                fill(tensors, index, folder)
            else:
                fill_rows(tensors, index, folder, rows)

        if problem := self._agreed(_problem(read)):
            raise UnusableError(problem)
        if state.device.type != "cpu":  # caches of a GPU's kernels learn of what was filled in beneath them
            state.model.load_state_dict(state.model.state_dict())
        if not_finite := self._agreed(not_finite_in(tensors)):
            raise UnusableError(f"it holds numbers that are not finite: {not_finite}")
        state.step = record.step
        self._refuse_mixture(name, record)
        return record

    def _record_of(self, name: str) -> str:
        """On rank 0: ``progress.json``, as all will read it."""
        if (self.folder / name / ".metadata").exists():
            return "pickle"
        return (self.folder / name / PROGRESS).read_bytes().decode("utf-8", "surrogateescape")

    def _parsed(self, name: str, text: str) -> CheckpointRecord:
        if text == "pickle":
            raise UnusableError(
                "an older version wrote it as a pickle, which can run code and is not read; go on with that version, "
                "or choose a new run_dir"
            )
        try:
            record = parse_record(text, self.shown / name / PROGRESS)
        except DataError as error:
            raise UnusableError(str(error)) from error
        if is_step_name(name) and name != step_name(record.step, series_of(name)):
            raise UnusableError(f"its {PROGRESS} says that it is step {record.step}")
        return record

    def _undamaged(self, name: str) -> CheckpointRecord:
        """What makes ``name`` whole, its files having been looked at, and fetched if the run is behind a URL.
        Collective."""
        text, sync = from_rank_zero(lambda: self._record_of(name), self._group), self._sync
        record = self._parsed(name, text)
        if sync is not None:
            sync.fetch_checkpoint(name, text)
        damage = self._damage_of(name, record.files)
        if damage and sync is not None:  # of the copy, on the way, or a newer one has taken its place
            remote = sync.remote
            text = from_rank_zero(lambda: remote.progress_of(name), self._group)
            record = self._parsed(name, text)
            sync.fetch_checkpoint(name, text, is_damaged=True)
            damage = self._damage_of(name, record.files)
        if damage:
            raise UnusableError(f"damaged: {damage}")
        return record

    def _damage_of(self, name: str, files: Files) -> str:
        """What is wrong with the files of ``name``; the ranks that share a folder share the reading. Collective."""
        sync = self._sync
        rank, num_ranks = (sync.rank, sync.num_ranks) if sync else (dist.get_rank(), dist.get_world_size())
        return self._agreed(damage_of(self.folder / name, files, rank, num_ranks, self._heartbeat))

    def _refuse_mixture(self, name: str, record: CheckpointRecord) -> None:
        """All ranks have taken the same, or none trains a step. Collective."""
        parts: list[Any] = [None] * dist.get_world_size()
        own = (record.step, sum_of(str(asdict(record)).encode()))
        dist.all_gather_object(parts, own, group=self._group)
        if len(set(parts)) > 1:
            found = ", ".join(f"rank {rank}: step {step}" for rank, (step, _) in enumerate(parts))
            raise DataError(f"the ranks have loaded {self.shown / name} differently ({found}); start again")

    def _agreed(self, found: list[str]) -> str:
        """What any rank has found. Collective."""
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, found, group=self._group)
        return ", ".join(sorted({each for part in parts for each in part}))


def read_index(path: Path, files: Files, shown: object) -> tuple[Index, str]:
    """The index in ``path``, of a checkpoint of ``files``, and what is wrong with it, empty if nothing."""
    try:
        content = path.read_bytes()
        index = index_of(parse_json_with_sum(content, shown))
        named = {part.file for tensor in index.values() for part in tensor.parts}
        is_right = sum_of(content) == files[INDEX][1] and named <= files.keys()
    except (DataError, OSError, KeyError, TypeError, ValueError) as error:
        return {}, f"{shown} cannot be read: {error}"
    return index, "" if is_right else f"{shown} is not the one that {PROGRESS} lists"


def _problem(action: Callable[[], object]) -> list[str]:
    """What went wrong in ``action``, of what files can do."""
    try:
        action()
    except (DataError, OSError, ValueError, SafetensorError) as error:
        return [str(error)]
    return []


def _keys_of(differences: str) -> str:
    """The keys that a person has changed, most likely."""
    if "optimizer." in differences and "model." not in differences:
        return "use the optimizer.table and sharding.strategy of the run"
    return "use the model, data.store and data.max_history of the run (its config.yaml has them)"
