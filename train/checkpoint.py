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

from configs.errors import DataError
from configs.schema import CheckpointConfig
from train.loop import Progress
from train.state import TrainState

BEST = "best"


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
        whole = self.folder.glob("step-*/progress.json")
        return sorted(path.parent for path in whole if not path.parent.name.endswith(".partial"))

    def restore_latest(self, state: TrainState) -> Progress:
        """Load the newest whole checkpoint, if any, into ``state``. Collective."""
        found = self.steps()
        return self.restore(found[-1].name, state) if found else Progress()

    def restore(self, name: str, state: TrainState) -> Progress:
        """Load checkpoint ``name`` into ``state`` and return how far early stopping was. Collective."""
        folder = self.folder / name
        if not (folder / "progress.json").is_file():
            raise DataError(f"{folder} holds no checkpoint; train this run_dir first")
        saved = _saved(state)
        dcp.load(saved, checkpoint_id=folder)
        state.model.load_state_dict(saved["model"])
        state.optimizer.load_state_dict(saved["optimizer"])
        progress = json.loads((folder / "progress.json").read_text())
        state.step = progress.pop("step")
        return Progress(**progress)

    def _write(self, name: str, state: TrainState, progress: Progress) -> None:
        partial, final = self.folder / f"{name}.partial", self.folder / name
        if dist.get_rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        dist.barrier()
        dcp.save(_saved(state), checkpoint_id=partial)
        if dist.get_rank() == 0:
            (partial / "progress.json").write_text(json.dumps({"step": state.step, **asdict(progress)}))
            old = self.folder / f"{name}.old.partial"
            if final.exists():
                final.rename(old)
            partial.rename(final)
            shutil.rmtree(old, ignore_errors=True)
        dist.barrier()


def _saved(state: TrainState) -> dict[str, Any]:
    """Model and optimizer as DCP takes them; states of a torch optimizer over table shards become DTensors."""
    model = state.model.state_dict()
    optimizer = state.optimizer.state_dict()
    optimizer["state"] = {
        name: {key: _as_sharded(value, model.get(name)) for key, value in values.items()}
        for name, values in optimizer["state"].items()
    }
    return {"model": model, "optimizer": {"state": optimizer["state"]}}


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
