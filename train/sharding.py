"""Places a recommender on the ranks: a plan for its tables, DDP for the rest, the same start under every plan."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torch.distributed.tensor import DTensor
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.distributed.types import ModuleSharder, ShardingEnv, ShardingPlan

from configs.errors import ConfigError
from configs.schema import RunConfig, Sharding, TableOptimizer
from models.recommender import Recommender
from models.tables import initial_rows
from train.distributed.fbgemm_patch import patch_dense_kernel

DENSE_MEMORY_SHARE = 0.15
"""Of a device's memory, kept from the tables for the encoder, its optimizer and activations."""
MIN_COLUMNS = 4
"""fbgemm's rows are aligned to four columns."""


def shard(model: Recommender, config: RunConfig, device: torch.device) -> DistributedModelParallel:
    """``model`` with its tables sharded and its dense part replicated; collective."""
    if device.type == "cpu":
        patch_dense_kernel()
    sharders = [EmbeddingCollectionSharder(fused_params={"bounds_check_mode": BoundsCheckMode.FATAL})]
    env = ShardingEnv(
        world_size=dist.get_world_size(), rank=dist.get_rank(), pg=dist.group.WORLD, output_dtensor=True
    )
    with _without_notices():
        plan = plan_of(model, config, sharders, device)
        sharded = DistributedModelParallel(module=model, env=env, device=device, plan=plan, sharders=sharders)
    initialise_tables(sharded, config)
    return sharded


def dense_parameters(sharded: DistributedModelParallel) -> dict[str, torch.nn.Parameter]:
    """The parameters outside the tables, by name."""
    return {name: weight for name, weight in sharded.named_parameters() if ".tables." not in f".{name}"}


def placement_of(sharded: DistributedModelParallel) -> str:
    """How each table lies, such as ``item row_wise, user table_wise``."""
    placed = {name: part for module in sharded.plan.plan.values() for name, part in module.items()}
    return ", ".join(f"{name} {part.sharding_type}" for name, part in sorted(placed.items()))


@contextmanager
def _without_notices() -> Iterator[None]:
    """Silence what TorchRec and torch print while they shard: notices to their own developers, twice a rank."""
    logger = logging.getLogger("torchrec.distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # told at the first step
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def uses_dense_kernel(config: RunConfig) -> bool:
    """Whether gradients of the tables are kept for a torch optimizer: fbgemm has no fused Adam on CPU, and
    data-parallel tables are updated after their gradients were averaged."""
    is_adam_on_cpu = config.optimizer.table is TableOptimizer.ADAM and config.hardware.device == "cpu"
    return is_adam_on_cpu or config.sharding.strategy is Sharding.DATA_PARALLEL


def plan_of(
    model: Recommender, config: RunConfig, sharders: list[EmbeddingCollectionSharder], device: torch.device
) -> ShardingPlan:
    """TorchRec's plan, the same on every rank; raises :class:`ConfigError` where no plan fits."""
    world_size = dist.get_world_size()
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=world_size, compute_device=device.type, local_world_size=world_size),
        constraints={
            table.name: _constraints(config, world_size, table.num_embeddings)
            for table in model.tables.embedding_configs()
        },
        storage_reservation=FixedPercentageStorageReservation(percentage=DENSE_MEMORY_SHARE),
    )
    _refuse_partial_rows(config, world_size)
    typed: list[ModuleSharder[torch.nn.Module]] = list(sharders)
    try:
        plan = planner.plan(model, typed)
    except (PlannerError, RuntimeError) as error:
        raise ConfigError(
            f"sharding.strategy={config.sharding.strategy.value} has no plan on {world_size} ranks: {error}"
        ) from error
    if uses_dense_kernel(config):
        _keep_gradients(plan)
    return plan


def _keep_gradients(plan: ShardingPlan) -> None:
    """Give every table the dense kernel. TorchRec's planner refuses it for what is not data-parallel; it works."""
    for module in plan.plan.values():
        for placed in module.values():
            placed.compute_kernel = EmbeddingComputeKernel.DENSE.value


def _refuse_partial_rows(config: RunConfig, world_size: int) -> None:
    """Row-wise Adagrad has one rate for a row; over columns each rank would have its own, of its part of the row."""
    is_by_row = config.optimizer.table is TableOptimizer.ROWWISE_ADAGRAD
    if config.sharding.strategy is Sharding.COLUMN_WISE and is_by_row and world_size > 1:
        raise ConfigError(
            f"sharding.strategy=column_wise with optimizer.table=rowwise_adagrad on {world_size} ranks: a row's rate "
            f"would depend on how many ranks hold its columns; set optimizer.table=adagrad, or another "
            f"sharding.strategy"
        )


def leaves_ranks_without_rows(num_rows: int, world_size: int) -> bool:
    """Whether rows that are dealt out in equal blocks run out before the last rank, as 9 rows on 4 ranks: 3, 3, 3, 0.

    fbgemm has no table of no rows.
    """
    return math.ceil(num_rows / world_size) * (world_size - 1) >= num_rows


def _constraints(config: RunConfig, world_size: int, num_rows: int) -> ParameterConstraints:
    strategy = config.sharding.strategy
    is_replicated = strategy is Sharding.DATA_PARALLEL
    kernel = EmbeddingComputeKernel.DENSE if is_replicated else EmbeddingComputeKernel.FUSED
    types = [strategy] if strategy is not Sharding.PLANNER else [Sharding.TABLE_WISE, Sharding.ROW_WISE]
    if Sharding.ROW_WISE in types and leaves_ranks_without_rows(num_rows, world_size):
        types = [Sharding.TABLE_WISE]  # so small a table costs nothing on one rank
    columns = max(config.model.embedding_dim // world_size // MIN_COLUMNS * MIN_COLUMNS, MIN_COLUMNS)
    return ParameterConstraints(
        sharding_types=[kind.value for kind in types],
        compute_kernels=[kernel.value],
        min_partition=columns if strategy is Sharding.COLUMN_WISE else None,
        pooling_factors=[float(config.data.max_history)],
    )


def initialise_tables(sharded: DistributedModelParallel, config: RunConfig) -> None:
    """Write every local shard's rows as a function of their global row alone."""
    for name, weight in table_weights(sharded).items():
        for shard_weight, (row, column) in local_shards(weight):
            # a user of whom nothing is learnt has no preference: all items tie, none is favoured by chance
            std = 0.0 if name == "user" and config.model.knows_users_alone else config.model.initial_std
            rows = initial_rows(config.seed, name, row, len(shard_weight), config.model.embedding_dim, std)
            with torch.no_grad():
                shard_weight.copy_(rows[:, column : column + shard_weight.shape[1]])


def forget_rows(sharded: DistributedModelParallel, table: str, is_forgotten: np.ndarray) -> None:
    """Let the rows of ``table`` that are forgotten, bool [rows], be zeros."""
    for shard_weight, (row, _) in local_shards(table_weights(sharded)[table]):
        own = torch.from_numpy(is_forgotten[row : row + len(shard_weight)]).to(shard_weight.device)
        with torch.no_grad():
            shard_weight.masked_fill_(own[:, None], 0.0)


def table_weights(sharded: DistributedModelParallel) -> dict[str, torch.Tensor]:
    """Table name to its weight: a DTensor, or a plain tensor where it is data-parallel."""
    weights = {
        key.split(".")[-2]: value for key, value in sharded.state_dict().items() if ".embeddings." in f".{key}"
    }
    return dict(sorted(weights.items()))


def local_shards(weight: torch.Tensor) -> list[tuple[torch.Tensor, tuple[int, int]]]:
    """This rank's parts of a table with the global row and column each begins at; they share its storage."""
    if not isinstance(weight, DTensor):
        return [(weight, (0, 0))]
    local: Any = weight.to_local()  # torchrec's LocalShardsWrapper
    shards = local.local_shards()  # a rank without a part has no shard, yet one offset
    return [(part, (row, column)) for part, (row, column) in zip(shards, local.local_offsets(), strict=False)]
