"""Checkpoints: written beside while training goes on, renamed when whole, restored under the same or another plan.

Under RUN/checkpoints: ``step-00000500`` folders, and ``best``. A folder named ``*.partial`` is never read.
"""

import functools
import json
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor
from torchrec.distributed.shards_wrapper import LocalShardsWrapper
from torchrec.optim.keyed import KeyedOptimizerWrapper

from configs.errors import ConfigError, DataError
from configs.schema import CheckpointConfig
from train.peers import control_group, on_rank_zero
from train.progress import Progress
from train.state import TrainState

BEST = "best"
PROGRESS = "progress.json"
"""Written last: step, :class:`Progress`, and size and CRC-32 of every file of the checkpoint."""
REPLACED = ".replaced.partial"
"""Ends the name of a checkpoint while a newer one takes its place."""
READ_BYTES = 2**24


class DiskCheckpointer:
    """Saves every ``every_steps`` and keeps the last ``keep_last``, and the best model apart.

    A save copies the tensors and goes on on a thread, with a process group of its own; the next save waits for it.
    A context: left without an error, it waits for the last save.
    """

    def __init__(self, run_dir: str, config: CheckpointConfig) -> None:
        """Collective."""
        self.folder, self.config = Path(run_dir) / "checkpoints", config
        self._group = control_group()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
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

    def save(self, state: TrainState, progress: Progress) -> None:
        """Save everything under ``step-*`` and drop the oldest. Collective."""
        self._write(f"step-{state.step:08d}", state, progress)

    def save_best(self, state: TrainState, progress: Progress) -> None:
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
            kept = f"{whole[-1]} is whole" if whole else "there is none before it"
            raise ConfigError(
                f"the checkpoint {self.folder / self._name} could not be written: {_reason(error)}; {kept}. "
                f"Make room and start the same command again"
            ) from error

    def steps(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        whole = self.folder.glob(f"step-*/{PROGRESS}")
        return sorted(path.parent for path in whole if not path.parent.name.endswith(".partial"))

    def restore_latest(self, state: TrainState) -> Progress:
        """Load the newest undamaged checkpoint, if any, into ``state``; return how far the run was. Collective.

        A damaged one is told and passed over; :class:`DataError` where all are.
        """
        self.wait()
        on_rank_zero(self._finish_replacements)
        found = self.steps()
        for folder in reversed(found):
            damage = self._damage(folder)
            if not damage:
                return self._restore(folder, state)
            if dist.get_rank() == 0:
                print(f"warning: {folder} is damaged and passed over: {damage}", flush=True)
        if found:
            raise DataError(f"no checkpoint in {self.folder} is undamaged; remove them to start the run anew")
        return Progress()

    def restore_best(self, state: TrainState) -> Progress:
        """Load the best model into ``state``, its optimizer left alone: for ranking. Collective."""
        self.wait()
        on_rank_zero(self._finish_replacements)
        folder = self.folder / BEST
        if not (folder / PROGRESS).is_file():
            raise DataError(f"{folder} holds no checkpoint; train this run_dir first")
        damage = self._damage(folder)
        if damage:
            raise DataError(f"{folder} is damaged: {damage}")
        saved = _model_of(state)
        dcp.load(saved, checkpoint_id=folder)
        state.model.load_state_dict(saved["model"])
        return _read_progress(folder, state)

    def _restore(self, folder: Path, state: TrainState) -> Progress:
        _make_optimizer_state(state)
        saved = _model_of(state) | _optimizer_of(state)
        dcp.load(saved, checkpoint_id=folder)
        state.model.load_state_dict(saved["model"])
        state.optimizer.post_load_state_dict()  # DCP has filled the state's own tensors in place
        return _read_progress(folder, state)

    def _write(self, name: str, state: TrainState, progress: Progress) -> None:
        self.wait()
        self._name, partial = name, self.folder / f"{name}.partial"
        on_rank_zero(lambda: _make_empty(partial))
        tensors = _model_of(state) | _optimizer_of(state)
        document = {"step": state.step, **asdict(progress)}
        written: Callable[[], object]
        if self.config.asynchronous:
            saving = dcp.async_save(tensors, checkpoint_id=partial, process_group=self._group)
            assert isinstance(saving, Future), "DCP gives another answer to custom stagers alone"
            written = saving.result
        else:
            written = functools.partial(dcp.save, tensors, checkpoint_id=partial, process_group=self._group)
        self._pending = self._thread.submit(self._complete, name, written, document)
        if not self.config.asynchronous:
            self.wait()

    def _complete(self, name: str, written: Callable[[], object], document: dict[str, Any]) -> None:
        """On the thread: wait for the tensors, then make the checkpoint whole. Collective over its own group."""
        written()
        partial, rank = self.folder / f"{name}.partial", dist.get_rank()
        own = [*partial.glob(f"__{rank}_*"), *([partial / ".metadata"] if rank == 0 else [])]
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, {path.name: _sum_of(path) for path in own}, group=self._group)
        files = {file: found for part in parts for file, found in part.items()}
        on_rank_zero(lambda: self._make_whole(name, {**document, "files": files}), self._group)

    def _make_whole(self, name: str, document: dict[str, Any]) -> None:
        """The last of the files, then the name; the oldest checkpoints go."""
        partial = self.folder / f"{name}.partial"
        (partial / PROGRESS).write_text(json.dumps(document))
        self._replace(partial, self.folder / name)
        for old in self.steps()[: -self.config.keep_last]:
            shutil.rmtree(old)

    def _damage(self, folder: Path) -> str:
        """What is wrong with the files of ``folder``, empty if nothing; each rank reads its share. Collective."""
        try:
            files = json.loads((folder / PROGRESS).read_text())["files"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            files, found = {}, [f"{PROGRESS}: {error}"]
        else:
            share = sorted(files)[dist.get_rank() :: dist.get_world_size()]
            found = [name for name in share if not _is_intact(folder / name, files[name])]
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, found, group=self._group)
        return ", ".join(sorted({name for part in parts for name in part}))

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


def _read_progress(folder: Path, state: TrainState) -> Progress:
    document = json.loads((folder / PROGRESS).read_text())
    document.pop("files")
    state.step = document.pop("step")
    return Progress(**document)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _sum_of(path: Path) -> list[int]:
    """Size and CRC-32."""
    total = 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            total = zlib.crc32(block, total)
    return [path.stat().st_size, total]


def _is_intact(path: Path, expected: list[int]) -> bool:
    return path.is_file() and path.stat().st_size == expected[0] and _sum_of(path) == expected


def _reason(error: BaseException) -> str:
    """The error behind DCP's, which wraps one a rank."""
    if isinstance(error, CheckpointException):
        return "; ".join(sorted({str(wrapped[0]) for wrapped in error.failures.values()}))
    return str(error)


def _make_optimizer_state(state: TrainState) -> None:
    """Let torch optimizers make their state, which they do at the first step: DCP loads only into what is there.

    The weights that this step may move are loaded right after.
    """
    for _, part in state.optimizer.optimizers:
        if isinstance(part, KeyedOptimizerWrapper):
            part.init_state()
    state.optimizer.zero_grad(set_to_none=True)


def _model_of(state: TrainState) -> dict[str, Any]:
    return {"model": state.model.state_dict()}


def _optimizer_of(state: TrainState) -> dict[str, Any]:
    """The optimizer as DCP takes it; states of a torch optimizer over table shards become DTensors."""
    weights = state.model.state_dict()
    found = {
        name: {key: _as_sharded(value, weights.get(name.partition(".")[2])) for key, value in values.items()}
        for name, values in state.optimizer.state_dict()["state"].items()  # a name is "table." + the weight's
    }
    plain = [
        f"{name}.{key}"
        for name, values in found.items()
        for key, value in values.items()
        if not isinstance(value, torch.Tensor)
    ]
    assert not plain, f"only tensors are restored in place; these are none: {plain}"
    return {"optimizer": {"state": found}}


def _as_sharded(value: Any, weight: Any) -> Any:
    """``value`` laid out like the DTensor ``weight``, sharing storage. DCP would otherwise keep one rank's alone."""
    is_plain = isinstance(value, torch.Tensor) and not isinstance(value, DTensor) and value.dim() > 0
    if not (is_plain and isinstance(weight, DTensor)):
        return value
    local: Any = weight.to_local()  # torchrec's LocalShardsWrapper
    shards = local.local_shards()
    if value.numel() != sum(part.numel() for part in shards):
        return value
    parts = torch.split(value.view(-1), [part.numel() for part in shards])
    wrapped = LocalShardsWrapper(
        [part.view(shard.shape) for part, shard in zip(parts, shards, strict=True)], local.local_offsets()
    )
    return DTensor.from_local(
        wrapped,
        device_mesh=weight.device_mesh,
        placements=weight.placements,
        shape=weight.shape,
        stride=weight.stride(),
        run_check=False,
    )
