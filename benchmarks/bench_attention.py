"""Attention kernels over jagged histories side by side: the ones that models use, and the ways that they do not.

``shardrec bench attention data.store=STORE ...``; on the CPU, or with ``hardware=h100`` on a GPU. Lengths are those
of the store's first batch, width and heads are ``model.*``'s. Forward and backward of one layer; milliseconds.

T tokens in the batch, B histories, L the longest, H heads, D the width of the model.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.harness import Spread, interleaved, paired_ratio, record_name, seconds_of, spread_of, write_result
from configs.errors import ConfigError
from configs.load import load_config, variants_of
from configs.schema import RunConfig
from configs.schema.model import AttentionConfig
from data_pipeline.stream.sequence_stream import SequenceStream
from models.attention.bucketed import bucketed_attention, buckets_of
from models.attention.dispatch import causal_attention, layout_of
from models.attention.varlen import VarlenLayout
from train.distributed.collectives import process_group

NUM_ROUNDS = 9
CALLS_PER_ROUND = 5
DEFAULTS = ["hardware.num_ranks=1", "hardware.num_threads=2"]
Attention = Callable[[Tensor], Tensor]


def main(overrides: list[str]) -> None:
    """Time every way that the device has, with and without dropout; write ``results/attention[_NAME].json``."""
    config = load_config([*DEFAULTS, *overrides])
    model, figures = _model(config), dict[str, Spread]()
    with process_group(config.hardware) as device:
        lengths = _lengths(config).to(device)
        for dtype in (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,):
            for rate in (0.0, model.attention_dropout):
                figures |= _compared(config, lengths, dtype, rate)
    notes = {
        "num_histories": len(lengths),
        "num_tokens": int(lengths.sum()),
        "longest": int(lengths.max()),
        "width": config.model.embedding_dim,
        "num_heads": model.num_heads,
    }
    write_result(record_name("attention", config.hardware), overrides, figures, notes)


def _model(config: RunConfig) -> AttentionConfig:
    if not isinstance(config.model, AttentionConfig):
        raise ConfigError(f"model={variants_of(config)['model']} has no softmax attention; bench one that has")
    return config.model


def _lengths(config: RunConfig) -> Tensor:
    batch = next(iter(SequenceStream(config.data, seed=config.seed, rank=0, world_size=1).batches()))
    return (batch.lengths - 1).clamp(min=1)


def _compared(config: RunConfig, lengths: Tensor, dtype: torch.dtype, rate: float) -> dict[str, Spread]:
    ways = _ways(config, lengths, dtype, rate)
    torch.manual_seed(config.seed)
    qkv = torch.randn(int(lengths.sum()), 3 * config.model.embedding_dim, device=lengths.device, dtype=dtype)
    qkv.requires_grad_()
    weight = torch.randn(len(qkv), config.model.embedding_dim, device=lengths.device, dtype=dtype)

    def milliseconds_of(way: Attention) -> Callable[[], float]:
        def calls() -> None:
            for _ in range(CALLS_PER_ROUND):
                qkv.grad = None
                way(qkv).backward(weight)

        return lambda: 1e3 * seconds_of(calls) / CALLS_PER_ROUND

    found = interleaved({name: milliseconds_of(way) for name, way in ways.items()}, NUM_ROUNDS)
    name = f"{str(dtype).removeprefix('torch.')}.dropout_{rate:g}"
    figures = {f"{name}.{way}_ms": spread_of(runs) for way, runs in found.items()}
    figures |= {
        f"{name}.{way}_against_ours": paired_ratio(runs, found["ours"])
        for way, runs in found.items()
        if way != "ours"
    }
    return figures


def _ways(config: RunConfig, lengths: Tensor, dtype: torch.dtype, rate: float) -> dict[str, Attention]:
    num_heads, num_tokens = _model(config).num_heads, int(lengths.sum())
    longest = int(lengths.max())
    layout = layout_of(
        lengths,
        num_tokens,
        longest=longest,
        head_width=config.model.embedding_dim // num_heads,
        dtype=dtype,
        rate=rate,
        is_training=True,
    )
    is_token = torch.arange(longest, device=lengths.device) < lengths[:, None]
    ways: dict[str, Attention] = {
        "ours": lambda qkv: causal_attention(qkv, layout, num_heads=num_heads, rate=rate),
        "padded": partial(padded_attention, is_token=is_token, num_heads=num_heads, rate=rate),
    }
    if isinstance(layout, VarlenLayout):
        ways["bucketed"] = partial(bucketed_attention, layout=buckets_of(lengths), num_heads=num_heads, rate=rate)
        offsets = layout.offsets.long()
        ways["nested"] = partial(_nested, offsets=offsets, longest=longest, num_heads=num_heads, rate=rate)
    return ways


def padded_attention(qkv: Tensor, is_token: Tensor, num_heads: int, rate: float) -> Tensor:
    """Every history padded to the longest: ``[T, 3 * D]`` to ``[T, D]``; ``is_token`` ``[B, L]``: what is real."""
    rows = qkv.new_zeros(*is_token.shape, qkv.shape[1]).masked_scatter(is_token[..., None], qkv)
    query, key, value = rows.view(*is_token.shape, 3, num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True)
    return mixed.transpose(1, 2).flatten(2)[is_token]


def _nested(qkv: Tensor, offsets: Tensor, longest: int, num_heads: int, rate: float) -> Tensor:
    """torch's public way to the same kernels: ``[T, 3 * D]`` to ``[T, D]``."""
    query, key, value = (
        torch.nested.nested_tensor_from_jagged(
            part.reshape(len(qkv), num_heads, -1), offsets, min_seqlen=1, max_seqlen=longest
        ).transpose(1, 2)
        for part in qkv.chunk(3, 1)
    )
    mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True)
    return mixed.transpose(1, 2).values().reshape(len(qkv), -1)
