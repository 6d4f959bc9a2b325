"""Tokens a second of a whole training step through the sharded path, beside the plain padded reference.

``shardrec bench step data.store=STORE ...``; on the CPU one rank of two threads unless ``hardware.*`` says otherwise,
so that both sides have the same cores; with ``hardware=h100`` one GPU. A token is a real event that predicts the
next, with an encoder that looks at both sides any real event; padding does not count. The reference is float32
throughout, also beside our bfloat16.
"""

from collections.abc import Callable
from dataclasses import asdict
from itertools import islice

import torch
from torch import Tensor

from benchmarks.arithmetic import STATED_TOKENS_PER_S, TokenFlop, bound_tokens_per_s, largest_rate, token_flop
from benchmarks.harness import Spread, interleaved, paired_ratio, record_name, seconds_of, spread_of, write_result
from benchmarks.phases import phase_seconds
from benchmarks.reference import PaddedReference, reference_step
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import FullSoftmaxConfig, Precision, RunConfig, SampledConfig, SASRecConfig, UserInput
from configs.schema.model import AttentionConfig
from data_pipeline.batch import SequenceBatch
from data_pipeline.store.manifest import Manifest, load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from models.encoders.encoder import Encoder
from models.loss.full_softmax import suitable_chunk_tokens
from models.masking import hidden_events
from train.distributed.collectives import ProcessGroupCollectives, process_group
from train.export.vectors import recommender_of
from train.run import build_state
from train.sharding import dense_parameters
from train.state import TrainState
from train.step import train_step

NUM_ROUNDS = 5
STEPS_PER_ROUND = 5
DEFAULTS = ["hardware.num_ranks=1", "hardware.num_threads=2"]
LOSSES = {
    "full_softmax": ["loss=full_softmax"],
    "full_softmax_bf16": ["loss=full_softmax", "loss.precision=bf16", "model.precision=bf16"],
    "sampled_128": ["loss=sampled_softmax", "loss.num_negatives=128"],
}


def main(overrides: list[str]) -> None:
    """Compare the two under both losses, time the phases of ours; write ``results/step[_NAME].json``."""
    if any(override.startswith("loss") for override in overrides):
        raise ConfigError(f"the step benchmark sets loss itself ({', '.join(LOSSES)}); leave loss out of {overrides}")
    figures: dict[str, Spread] = {}
    notes: dict[str, object] = {"steps_per_round": STEPS_PER_ROUND}
    has_precision = isinstance(load_config([*DEFAULTS, *overrides]).model, AttentionConfig)
    losses = {name: keys for name, keys in LOSSES.items() if has_precision or "model.precision=bf16" not in keys}
    for name, loss in losses.items():
        config = load_config([*DEFAULTS, *overrides, *loss])
        _check(config)
        found, told = _measured(config)
        if config.hardware.device == "cpu":
            notes["stated_bound_tokens_per_s"] = STATED_TOKENS_PER_S
            found["share_of_stated_bound"] = spread_of(
                [rate / STATED_TOKENS_PER_S[name] for rate in found["tokens_per_s"].runs]
            )
        figures |= {f"{name}.{key}": spread for key, spread in found.items()}
        notes[name] = told
    write_result(record_name("step", config.hardware), overrides, figures, notes)


def _check(config: RunConfig) -> None:
    if config.hardware.num_ranks != 1:
        raise ConfigError(
            f"hardware.num_ranks={config.hardware.num_ranks}: the step benchmark compares one process; set it to 1"
        )
    if config.model.user_input is not UserInput.NONE:
        raise ConfigError(f"model.user_input={config.model.user_input.value}: the reference has none; set it to none")


def _measured(config: RunConfig) -> tuple[dict[str, Spread], dict[str, object]]:
    manifest = load_manifest(config.data.store)
    stream = SequenceStream(config.data, seed=config.seed, rank=0, world_size=1)
    streamed = stream.batches()
    batches = list(islice(streamed, STEPS_PER_ROUND))
    with process_group(config.hardware) as device:
        state = build_state(config, manifest, 10_000, ProcessGroupCollectives(), device)
        rates = _rates(config, manifest, state, batches)
        phases = phase_seconds(state, streamed, STEPS_PER_ROUND)
        encoder = recommender_of(state).encoder
        flop = _flop(config, manifest, encoder, batches)
        bound = [_bound(config, manifest, encoder, batches, device) for _ in range(NUM_ROUNDS)]
        largest = largest_rate(_block_dtype(config), device)
    figures = {"tokens_per_s": spread_of(rates["ours"])}
    if "reference" in rates:
        figures["reference_tokens_per_s"] = spread_of(rates["reference"])
        figures["against_reference"] = paired_ratio(rates["ours"], rates["reference"])
    figures |= {
        "bound_tokens_per_s": spread_of(bound),
        "share_of_bound": spread_of([rate / spread_of(bound).median for rate in rates["ours"]]),
        "model_flop_utilisation": spread_of([rate * flop.total / largest for rate in rates["ours"]]),
    }
    total = sum(phases.values())
    for phase, seconds in phases.items():
        print(f"  {phase:20s} {seconds * 1e3:8.1f} ms {seconds / total:7.1%}")
    told = {
        "num_parameters": sum(weight.numel() for weight in dense_parameters(state.model).values()),
        "tokens_per_step": int(_lengths(config, batches).sum()) / len(batches),
        "forward_flop_per_token": asdict(flop),
        "largest_flop_per_s": largest,
        "phase_ms": {phase: seconds * 1e3 for phase, seconds in phases.items()},
    }
    return figures, told


def _rates(
    config: RunConfig, manifest: Manifest, state: TrainState, batches: list[SequenceBatch]
) -> dict[str, list[float]]:
    """Both sides train on the same batches, which are in memory: reading them is a phase of its own.

    Only SASRec has a reference.
    """
    num_tokens = int(_lengths(config, batches).sum())

    def ours() -> None:
        for batch in batches:
            train_step(state, batch)
            state.step += 1

    ways = {"ours": lambda: num_tokens / seconds_of(ours)}
    if isinstance(config.model, SASRecConfig):
        theirs = _reference_steps(config, config.model, manifest, state.device, batches)
        ways["reference"] = lambda: num_tokens / seconds_of(theirs)
    return interleaved(ways, NUM_ROUNDS)


def _reference_steps(
    config: RunConfig, model: SASRecConfig, manifest: Manifest, device: torch.device, batches: list[SequenceBatch]
) -> Callable[[], None]:
    """Trains the reference on ``batches``."""
    reference = PaddedReference(model, manifest.num_items, config.data.max_history).to(device)
    optimizer = torch.optim.AdamW(
        reference.parameters(),
        lr=config.optimizer.lr,
        betas=(config.optimizer.beta1, config.optimizer.beta2),
        weight_decay=config.optimizer.weight_decay,
    )
    num_negatives = config.loss.num_negatives if isinstance(config.loss, SampledConfig) else 0

    def theirs() -> None:
        for batch in batches:
            reference_step(reference, optimizer, batch, num_negatives)

    return theirs


def _num_candidates(config: RunConfig, manifest: Manifest) -> int:
    return config.loss.num_negatives if isinstance(config.loss, SampledConfig) else manifest.num_items


def _dtype_of(precision: Precision) -> torch.dtype:
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32


def _block_dtype(config: RunConfig) -> torch.dtype:
    return _dtype_of(config.model.precision) if isinstance(config.model, AttentionConfig) else torch.float32


def _lengths(config: RunConfig, batches: list[SequenceBatch]) -> Tensor:
    """Tokens that the encoder reads of each history: the last event is a target alone, unless any may be one."""
    return torch.cat([batch.lengths for batch in batches]) - (1 if config.model.masking is None else 0)


def _predicted_share(config: RunConfig, batches: list[SequenceBatch]) -> float:
    """Predictions of a token that the encoder reads."""
    if (masking := config.model.masking) is None:
        return 1.0
    hidden = [hidden_events(batch, masking, seed=config.seed, step=step) for step, batch in enumerate(batches)]
    return float(torch.cat(hidden).double().mean())


def _flop(config: RunConfig, manifest: Manifest, encoder: Encoder, batches: list[SequenceBatch]) -> TokenFlop:
    lengths, share = _lengths(config, batches), _predicted_share(config, batches)
    return token_flop(encoder, config.model.embedding_dim, lengths, _num_candidates(config, manifest), share)


def _bound(
    config: RunConfig, manifest: Manifest, encoder: Encoder, batches: list[SequenceBatch], device: torch.device
) -> float:
    lengths = _lengths(config, batches)
    num_candidates, chunk = _num_candidates(config, manifest), int(lengths.sum()) // len(batches)
    per_step, flop = chunk, _flop(config, manifest, encoder, batches)
    if isinstance(config.loss, FullSoftmaxConfig):
        suitable = suitable_chunk_tokens(device, num_candidates, config.loss.precision)
        chunk = config.loss.chunk_tokens or suitable
    head_dtype = _dtype_of(config.loss.precision) if isinstance(config.loss, FullSoftmaxConfig) else torch.float32
    block_dtype, width = _block_dtype(config), config.model.embedding_dim
    products = encoder.flop(lengths).products
    return bound_tokens_per_s(products, width, flop, per_step, num_candidates, chunk, device, block_dtype, head_dtype)
