"""The softmax over the whole catalogue, in chunks, against the plain one that makes all logits: time and memory.

``shardrec bench loss [hardware=h100]``; random vectors, so no store. Forward and both gradients.

N predictions, V items, D the width.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.harness import Spread, interleaved, record_name, seconds_of, spread_of, write_result
from configs.load import load_config
from configs.schema import Precision
from models.collectives import SingleProcess
from models.loss.full_softmax import full_softmax_loss, suitable_chunk_tokens
from train.distributed.collectives import process_group

NUM_ROUNDS = 5
DEFAULTS = ["hardware.num_ranks=1", "hardware.num_threads=2"]
SIZES = {
    "cpu": [(4_096, 3_416, 64), (4_096, 30_000, 64)],
    "cuda": [(13_312, 3_416, 64), (16_384, 237_788, 256), (16_384, 1_000_000, 128)],
}
"""(N, V, D) by device."""
OTHER_CHUNKS = {"cpu": (64, 2_048), "cuda": (256, 1_024, 4_096)}
"""Rows of a chunk beside the number that suits the device."""
PLAIN_BYTES = 40 * 2**30
"""The plain softmax is left out where its logits and their gradient would take more."""
FLOP_PER_LOGIT_AND_COLUMN = 6
"""A multiply-add forward, and one for each of the two gradients."""


def main(overrides: list[str]) -> None:
    """Time both, in float32 and bfloat16; write ``results/loss[_NAME].json``."""
    config = load_config([*DEFAULTS, *overrides])
    figures: dict[str, Spread] = {}
    with process_group(config.hardware) as device:
        for size in SIZES[device.type]:
            figures |= _compared(*size, device)
    write_result(record_name("loss", config.hardware), overrides, figures, {"sizes": SIZES[config.hardware.device]})


def _compared(num_predictions: int, num_items: int, width: int, device: torch.device) -> dict[str, Spread]:
    torch.manual_seed(0)
    query = torch.randn(num_predictions, width, device=device).mul_(0.3).requires_grad_()
    item = torch.randn(num_items, width, device=device).mul_(0.3).requires_grad_()
    target = torch.randint(num_items, (num_predictions,), device=device)
    losses: dict[str, Callable[[], Tensor]] = {}
    for precision in Precision:
        suitable = suitable_chunk_tokens(device, num_items, precision)
        for chunk_tokens in sorted({suitable, *OTHER_CHUNKS[device.type]}):
            name = f"{precision.value}_chunk_{chunk_tokens}" + "_ours" * (chunk_tokens == suitable)
            losses[name] = partial(
                full_softmax_loss,
                query,
                target,
                item,
                range(num_items),
                chunk_tokens=chunk_tokens,
                collectives=SingleProcess(),
                precision=precision,
            )
    if 2 * num_predictions * num_items * query.element_size() <= PLAIN_BYTES:
        losses["fp32_all_at_once"] = lambda: functional.cross_entropy(query @ item.t(), target, reduction="sum")

    def step(name: str) -> None:
        query.grad = item.grad = None
        losses[name]().backward()

    found = interleaved({name: partial(seconds_of, partial(step, name)) for name in losses}, NUM_ROUNDS)
    place = f"{num_predictions}x{num_items}x{width}"
    flop = FLOP_PER_LOGIT_AND_COLUMN * num_predictions * num_items * width
    figures = {}
    for name, seconds in found.items():
        figures[f"{place}.{name}_ms"] = spread_of([1e3 * each for each in seconds])
        figures[f"{place}.{name}_tflop_per_s"] = spread_of([flop / each / 1e12 for each in seconds])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            step(name)
            figures[f"{place}.{name}_peak_gib"] = spread_of([torch.cuda.max_memory_allocated() / 2**30])
    return figures
