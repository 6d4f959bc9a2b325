"""Optimizers: fused in backward for the tables, AdamW for the dense part."""

from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import WeightDecayMode
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward as apply_optimizer_in_backward
from torchrec.distributed import DistributedModelParallel
from torchrec.optim import Adam as FusedAdam
from torchrec.optim import RowWiseAdagrad
from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper

from configs.schema import OptimizerConfig, RunConfig, TableOptimizer
from models.recommender import Recommender
from train.sharding import dense_parameters, uses_dense_kernel

TABLE_OPTIMIZERS: dict[TableOptimizer, type[torch.optim.Optimizer]] = {
    TableOptimizer.ROWWISE_ADAGRAD: RowWiseAdagrad,
    TableOptimizer.ADAGRAD: torch.optim.Adagrad,
    TableOptimizer.SGD: torch.optim.SGD,
    TableOptimizer.ADAM: torch.optim.Adam,
}


def fuse_table_optimizer(model: Recommender, config: RunConfig) -> None:
    """Ask fbgemm to update the tables inside backward; before sharding. Without it TorchRec trains them silently
    with SGD. Does nothing where the tables take a torch optimizer."""
    if not uses_dense_kernel(config):
        kind, arguments = TABLE_OPTIMIZERS[config.optimizer.table], _table_arguments(config.optimizer)
        if config.optimizer.table is TableOptimizer.ADAM:  # fbgemm's names, which torch's own class refuses
            beta1, beta2 = arguments.pop("betas")
            kind, arguments = FusedAdam, {**arguments, "beta1": beta1, "beta2": beta2}
        elif config.optimizer.table_weight_decay:
            arguments["weight_decay_mode"] = WeightDecayMode.DECOUPLE  # without a mode it is silently left out
        apply_optimizer_in_backward(kind, model.tables.parameters(), arguments)


def build_optimizer(sharded: DistributedModelParallel, config: RunConfig) -> CombinedOptimizer:
    """AdamW over the dense part, the tables' fused optimizer, and where it is not fused a torch one."""
    dense = dense_parameters(sharded)
    optimizers = [("dense", KeyedOptimizerWrapper(dense, lambda parameters: _adamw(parameters, config.optimizer)))]
    if uses_dense_kernel(config):
        table = {name: weight for name, weight in sharded.named_parameters() if name not in dense}
        kind, arguments = TABLE_OPTIMIZERS[config.optimizer.table], _table_arguments(config.optimizer)
        if kind is torch.optim.Adam and config.optimizer.table_weight_decay:
            kind = torch.optim.AdamW  # Adam's own would go through the gradients' averages
        optimizers.append(("table", KeyedOptimizerWrapper(table, lambda parameters: kind(parameters, **arguments))))
    else:
        optimizers.append(("table", sharded.fused_optimizer))
    return CombinedOptimizer(optimizers)


def _adamw(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay
    )


def _table_arguments(config: OptimizerConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {"lr": config.table_lr}
    if config.table is TableOptimizer.ADAM:
        arguments["betas"] = (config.beta1, config.beta2)
    if config.table in (TableOptimizer.ADAGRAD, TableOptimizer.ROWWISE_ADAGRAD):
        arguments["eps"] = 1e-8
    if config.table_weight_decay:
        arguments["weight_decay"] = config.table_weight_decay
    return arguments
