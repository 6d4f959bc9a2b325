"""The tensors of a checkpoint: weights and optimizer state as DCP takes them, a part from each rank."""

from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torchrec.distributed.shards_wrapper import LocalShardsWrapper
from torchrec.optim.keyed import KeyedOptimizerWrapper

from train.run_dir.flatten import flat
from train.state import TrainState


def make_optimizer_state(state: TrainState) -> None:
    """Let torch optimizers make their state, which they do at the first step: DCP loads only into what is there.

    The weights that this step may move are loaded right after.
    """
    for _, part in state.optimizer.optimizers:
        if isinstance(part, KeyedOptimizerWrapper):
            part.init_state()
    state.optimizer.zero_grad(set_to_none=True)


def model_of(state: TrainState) -> dict[str, Any]:
    """The weights, sharing storage with the model."""
    return {"model": state.model.state_dict()}


def optimizer_of(state: TrainState) -> dict[str, Any]:
    """The optimizer's state; that of a torch optimizer over table shards becomes DTensors."""
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


def not_finite_in(tensors: dict[str, Any]) -> list[str]:
    """Names of the tensors of which this rank's part holds an infinite value or none that is a number."""
    return [
        name
        for name, tensor in flat(tensors)
        if tensor.is_floating_point() and not all(map(_is_finite, _parts_here(tensor)))
    ]


def _is_finite(part: torch.Tensor) -> bool:
    return bool(part.detach().sum(dtype=torch.float64).isfinite())  # a sum of float32 cannot overflow


def _parts_here(tensor: torch.Tensor) -> list[torch.Tensor]:
    local: Any = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.local_shards() if isinstance(local, LocalShardsWrapper) else [local]


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
