"""Checkpoints: written beside, renamed when whole, restored under the same or another plan.

Under RUN/checkpoints: ``step-00000500`` folders, and ``best``. A folder named ``*.partial`` is never read.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor
from torchrec.distributed.shards_wrapper import LocalShardsWrapper
from torchrec.optim.keyed import KeyedOptimizerWrapper

from configs.errors import DataError
from configs.schema import CheckpointConfig
from train.loop import Progress
from train.state import TrainState

BEST = "best"
PROGRESS = "progress.json"
REPLACED = ".replaced.partial"
"""Ends the name of a checkpoint while a newer one takes its place."""


class DiskCheckpointer:
    """Saves every ``every_steps`` and keeps the last ``keep_last``, and the best model apart."""

    def __init__(self, run_dir: str, config: CheckpointConfig) -> None:
        self.folder, self.config = Path(run_dir) / "checkpoints", config

    def is_due(self, step: int) -> bool:
        """Whether ``step`` is saved."""
        return step % self.config.every_steps == 0

    def save(self, state: TrainState, progress: Progress) -> None:
        """Save everything under ``step-*`` and drop the oldest. Collective."""
        self._write(f"step-{state.step:08d}", state, progress)
        if dist.get_rank() == 0:
            for old in self.steps()[: -self.config.keep_last]:
                shutil.rmtree(old)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Replace ``best``. Collective."""
        self._write(BEST, state, progress)

    def steps(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        whole = self.folder.glob(f"step-*/{PROGRESS}")
        return sorted(path.parent for path in whole if not path.parent.name.endswith(".partial"))

    def restore_latest(self, state: TrainState) -> Progress:
        """Load the newest whole checkpoint, if any, into ``state``; return how far the run was. Collective."""
        if dist.get_rank() == 0:
            self._finish_replacements()
        dist.barrier()
        found = self.steps()
        if not found:
            return Progress()
        _make_optimizer_state(state)
        saved = _model_of(state) | _optimizer_of(state)
        dcp.load(saved, checkpoint_id=found[-1])
        state.model.load_state_dict(saved["model"])
        state.optimizer.post_load_state_dict()  # DCP has filled the state's own tensors in place
        return self._read_progress(found[-1], state)

    def restore_best(self, state: TrainState) -> Progress:
        """Load the best model into ``state``, its optimizer left alone: for ranking. Collective."""
        folder = self.folder / BEST
        if not (folder / PROGRESS).is_file():
            raise DataError(f"{folder} holds no checkpoint; train this run_dir first")
        saved = _model_of(state)
        dcp.load(saved, checkpoint_id=folder)
        state.model.load_state_dict(saved["model"])
        return self._read_progress(folder, state)

    def _read_progress(self, folder: Path, state: TrainState) -> Progress:
        progress = json.loads((folder / PROGRESS).read_text())
        state.step = progress.pop("step")
        return Progress(**progress)

    def _write(self, name: str, state: TrainState, progress: Progress) -> None:
        partial, final = self.folder / f"{name}.partial", self.folder / name
        if dist.get_rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier()
        dcp.save(_model_of(state) | _optimizer_of(state), checkpoint_id=partial)
        if dist.get_rank() == 0:
            (partial / PROGRESS).write_text(json.dumps({"step": state.step, **asdict(progress)}))
            self._replace(partial, final)
        dist.barrier()

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
