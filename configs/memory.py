"""The memory that a run takes at least on one machine: what cannot fit is refused with its bytes and its key."""

from dataclasses import dataclass

from configs.errors import ConfigError
from configs.machine import GIB, available_memory_gib
from configs.schema import RunConfig, SampledConfig, TableOptimizer, UserInput

FLOAT = 4
BYTES_PER_DENSE_WEIGHT = 4 * FLOAT
"""The weight, its gradient and AdamW's two means."""
BYTES_PER_EVENT = 16
"""An item and a time in a batch made ahead."""
LEAST_PER_RANK = GIB // 5
"""What a rank holds of its own, beside libraries that all share."""
_STATES = {
    TableOptimizer.SGD: 0,
    TableOptimizer.ROWWISE_ADAGRAD: 0,
    TableOptimizer.ADAGRAD: 1,
    TableOptimizer.ADAM: 2,
}
"""Numbers that the optimizer keeps for each of a table's."""


@dataclass(frozen=True, slots=True)
class Part:
    """What ``num_bytes`` are for, and the key that makes them less."""

    key: str
    value: float
    num_bytes: float


def least_memory(config: RunConfig, *, num_items: int = 0, num_users: int = 0) -> list[Part]:
    """The parts of the least memory of all ranks together; a real run takes more. Tables need the store's counts."""
    ranks, width = config.hardware.num_ranks, config.model.embedding_dim
    tokens = config.data.global_batch_tokens or config.data.global_batch_size
    batch_key = "data.global_batch_tokens" if config.data.global_batch_tokens else "data.global_batch_size"
    rows = num_items + (num_users if config.model.user_input is not UserInput.NONE else 0)
    model = config.model
    depth_key, num_layers = model.depth
    parts = [
        Part("hardware.num_ranks", ranks, ranks * LEAST_PER_RANK),
        Part("model.embedding_dim", width, rows * width * FLOAT * (1 + _STATES[config.optimizer.table])),
        Part(f"model.{depth_key}", num_layers, ranks * num_layers * model.num_layer_weights * BYTES_PER_DENSE_WEIGHT),
        Part("data.max_history", config.data.max_history, ranks * config.data.max_history * width * FLOAT),
        Part(batch_key, tokens, tokens * width * FLOAT * max(num_layers, 1)),
        Part(
            "data.prefetch_batches",
            config.data.prefetch_batches,
            config.data.prefetch_batches * tokens * BYTES_PER_EVENT,
        ),
        Part("data.prefetch_mib", config.data.prefetch_mib, ranks * config.data.prefetch_mib * 2**20),
    ]
    if isinstance(config.loss, SampledConfig):
        for key in ("num_negatives", "in_batch_negatives"):
            number = getattr(config.loss, key)
            parts.append(Part(f"loss.{key}", number, number * FLOAT * (ranks * width + tokens)))
    return parts


def check_memory(config: RunConfig, *, num_items: int = 0, num_users: int = 0) -> None:
    """Raise :class:`ConfigError` where all ranks of ``config`` on this machine cannot fit into its memory."""
    parts = least_memory(config, num_items=num_items, num_users=num_users)
    total, needed = available_memory_gib()[0], sum(part.num_bytes for part in parts) / GIB
    if needed > total:
        largest = max(parts, key=lambda part: part.num_bytes)
        raise ConfigError(
            f"{largest.key}={largest.value} takes at least {_size(largest.num_bytes)}, the whole run "
            f"{_size(needed * GIB)} on hardware.num_ranks={config.hardware.num_ranks}; this machine has "
            f"{_size(total * GIB)}: set a smaller {largest.key}"
        )


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GIB:,.1f} GiB ({num_bytes:,.0f} bytes)"
