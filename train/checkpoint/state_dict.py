"""The tensors of a checkpoint: weights and optimizer state under one name each, whatever plan and kernel hold them.

A table's optimizer keeps its state in fbgemm (fused into backward) or in a torch optimizer, and lays it out as its
table is sharded. A checkpoint knows neither: ``optimizer.table.item.sum`` is ``[rows]`` or ``[rows, D]`` under each.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torchrec.optim.keyed import KeyedOptimizerWrapper

from configs.flatten import flat
from configs.schema import TableOptimizer
from train.state import TrainState

Offset = tuple[int, ...]

_FUSED_SLOTS = {
    ("rowwise_adagrad", "momentum1"): "sum",
    ("adagrad", "momentum1"): "sum",
    ("adam", "momentum1"): "exp_avg",
    ("adam", "momentum2"): "exp_avg_sq",
    ("adam", "exp_avg_sq"): "exp_avg_sq",
}
"""fbgemm's names of what torch's optimizers call by the right-hand side."""


@dataclass(slots=True)
class RunTensor:
    """A tensor of the run and the parts of it that this rank holds, which share storage with the state."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: list[tuple[Tensor, Offset]] = field(default_factory=list)
    """Each with the place of its first element. A replicated tensor is one part on every rank."""


def make_optimizer_state(state: TrainState) -> None:
    """Let torch optimizers make their state, which they do at the first step: loading fills what is there.

    The weights that this step may move are loaded right after.
    """
    for _, part in state.optimizer.optimizers:
        if isinstance(part, KeyedOptimizerWrapper):
            part.init_state()
    state.optimizer.zero_grad(set_to_none=True)


def weights_of(state: TrainState) -> list[RunTensor]:
    """The weights, sorted by name."""
    found = [_run_tensor(f"model.{name}", value) for name, value in flat(state.model.state_dict())]
    return sorted(found, key=lambda tensor: tensor.name)


def optimizer_state_of(state: TrainState) -> list[RunTensor]:
    """The optimizers' state, sorted by name."""
    weights = dict(flat(state.model.state_dict()))
    found = []
    for name, slots in state.optimizer.state_dict()["state"].items():  # a name is "dense." or "table." + the weight's
        kind, _, weight_name = name.partition(".")
        if kind == "dense":
            found += [_run_tensor(f"optimizer.{name}.{slot}", value) for slot, value in flat(slots)]
        else:
            found += table_state(
                weight_name, weights[weight_name], dict(flat(slots)), state.table_optimizer, state.step
            )
    return sorted(found, key=lambda tensor: tensor.name)


def average_of(state: TrainState) -> list[RunTensor]:
    """The average of the weights, sorted by name; nothing where there is none."""
    if state.average is None:
        return []
    found = []
    for weight in weights_of(state):
        name = weight.name.removeprefix("model.")
        if name in state.average.parts:
            places = [place for _, place in weight.parts]
            parts = list(zip(state.average.parts[name], places, strict=True))
            found.append(RunTensor(f"average.{name}", weight.shape, weight.dtype, parts))
    return found


def after_loading(state: TrainState) -> None:
    """Tell the optimizers that their state was filled in place, and ``state.step`` set."""
    state.optimizer.post_load_state_dict()
    for name, part in state.optimizer.optimizers:
        is_fused = name == "table" and not isinstance(part, KeyedOptimizerWrapper)
        if is_fused and state.table_optimizer is TableOptimizer.ADAM:
            # fbgemm corrects Adam's averages by a count of steps that is in no state_dict
            part.set_optimizer_step(state.step)


def not_finite_in(tensors: list[RunTensor]) -> list[str]:
    """Names of the tensors of which this rank's parts hold an infinite value or none that is a number."""
    return [
        tensor.name
        for tensor in tensors
        if tensor.dtype.is_floating_point and not all(_is_finite(part) for part, _ in tensor.parts)
    ]


def _is_finite(part: Tensor) -> bool:
    return bool(part.detach().sum(dtype=torch.float64).isfinite())  # a sum of float32 cannot overflow


def table_state(
    weight_name: str, weight: Any, slots: dict[str, Any], optimizer: TableOptimizer, step: int
) -> list[RunTensor]:
    """The state of one table, fbgemm's or torch's by their own names in ``slots``, over the shards of ``weight``."""
    table, kind = weight_name.split(".")[-2], optimizer.value
    if kind == "adam":
        slots = {"step": torch.tensor(float(step)), **slots}  # fbgemm has it in no state_dict
    found = []
    for slot, value in slots.items():
        name = slot.rpartition(".")[2]  # fbgemm's is "item.momentum1"
        name = _FUSED_SLOTS.get((kind, name), name)
        if name == "step":
            # Adagrad counts steps for a decay of its rate that it does not have.
            found += [_run_tensor(f"optimizer.table.{table}.step", value)] if kind == "adam" else []
            continue
        parts = _parts_over(weight, _local(value), is_rowwise=kind == "rowwise_adagrad")
        shape = tuple(weight.shape[:1]) if kind == "rowwise_adagrad" else tuple(weight.shape)
        found.append(RunTensor(f"optimizer.table.{table}.{name}", shape, torch.float32, parts))
    return found


def _parts_over(weight: Any, locals_: list[Tensor], *, is_rowwise: bool) -> list[tuple[Tensor, Offset]]:
    """The state ``locals_``, in one piece or in one a shard, at the places of the shards of ``weight``."""
    shards = _run_tensor("", weight).parts
    sizes = [len(shard) if is_rowwise else shard.numel() for shard, _ in shards]
    flats = [each.detach().view(-1) for each in locals_ if each.numel()]
    if len(flats) == 1 and len(sizes) != 1:  # a torch optimizer keeps one state for all shards of a table
        flats = list(torch.split(flats[0], sizes))
    assert [len(each) for each in flats] == sizes, "the state has one value, or one row of them, for each row"
    if is_rowwise:
        return [(each, place[:1]) for each, (_, place) in zip(flats, shards, strict=True)]
    return [(each.view(shard.shape), place) for each, (shard, place) in zip(flats, shards, strict=True)]


def _run_tensor(name: str, value: Any) -> RunTensor:
    found = RunTensor(name, tuple(value.shape), value.dtype)
    if isinstance(value, DTensor):
        local: Any = value.to_local()  # torchrec's LocalShardsWrapper
        # A rank without a part has no shard, yet one offset.
        found.parts = [
            (shard, tuple(place)) for shard, place in zip(local.local_shards(), local.local_offsets(), strict=False)
        ]
    else:
        found.parts = [(value, (0,) * value.dim())]
    found.parts = [(part.detach(), place) for part, place in found.parts if part.numel()]
    return found


def _local(value: Any) -> list[Tensor]:
    if not isinstance(value, DTensor):
        return [value]
    local: Any = value.to_local()  # torchrec's LocalShardsWrapper
    return list(local.local_shards())
