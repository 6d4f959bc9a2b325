"""Tokens a second of a whole training step through the sharded path, beside the plain padded reference.

``python -m benchmarks step data.store=STORE ...``; CPU, one rank of two threads unless ``hardware.*`` says otherwise,
so that both sides have the same cores. A token is a real event that predicts the next; padding does not count.
"""

from itertools import islice

import torch

from benchmarks.arithmetic import STATED_TOKENS_PER_S, bound_tokens_per_s, token_flop
from benchmarks.harness import Spread, interleaved, paired_ratio, seconds_of, spread_of, write_result
from benchmarks.phases import phase_seconds
from benchmarks.reference import PaddedReference, reference_step
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import FullSoftmaxConfig, RunConfig, SampledConfig, UserInput
from data_pipeline.batch import SequenceBatch
from data_pipeline.manifest import Manifest, load_manifest
from data_pipeline.stream import SequenceStream
from train.peers import DistributedPeers, process_group
from train.run import build_state
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
    """Compare the two under both losses, time the phases of ours; write ``results/step.json``."""
    if any(override.startswith("loss") for override in overrides):
        raise ConfigError(f"the step benchmark sets loss itself ({', '.join(LOSSES)}); leave loss out of {overrides}")
    figures: dict[str, Spread] = {}
    notes: dict[str, object] = {"steps_per_round": STEPS_PER_ROUND, "stated_bound_tokens_per_s": STATED_TOKENS_PER_S}
    for name, loss in LOSSES.items():
        config = load_config([*DEFAULTS, *overrides, *loss])
        _check(config)
        found, told = _measured(config)
        found["share_of_stated_bound"] = spread_of(
            [rate / STATED_TOKENS_PER_S[name] for rate in found["tokens_per_s"].runs]
        )
        figures |= {f"{name}.{key}": spread for key, spread in found.items()}
        notes[name] = told
    write_result("step", overrides, figures, notes)


def _check(config: RunConfig) -> None:
    if config.hardware.device != "cpu" or config.hardware.num_ranks != 1:
        raise ConfigError(
            f"hardware.device={config.hardware.device}, hardware.num_ranks={config.hardware.num_ranks}: the step "
            f"benchmark compares one process on CPU; set them to cpu and 1"
        )
    if config.model.user_input is not UserInput.NONE:
        raise ConfigError(f"model.user_input={config.model.user_input.value}: the reference has none; set it to none")


def _measured(config: RunConfig) -> tuple[dict[str, Spread], dict[str, object]]:
    manifest = load_manifest(config.data.store)
    stream = SequenceStream(config.data, seed=config.seed, rank=0, world_size=1)
    streamed = stream.batches()
    batches = list(islice(streamed, STEPS_PER_ROUND))
    with process_group(config.hardware) as device:
        state = build_state(config, manifest, 10_000, DistributedPeers(), device)
        rates = _rates(config, manifest, state, batches)
        phases = phase_seconds(state, streamed, STEPS_PER_ROUND)
        bound = [_bound(config, manifest, batches) for _ in range(NUM_ROUNDS)]
    figures = {
        "tokens_per_s": spread_of(rates["ours"]),
        "reference_tokens_per_s": spread_of(rates["reference"]),
        "against_reference": paired_ratio(rates["ours"], rates["reference"]),
        "bound_tokens_per_s": spread_of(bound),
        "share_of_bound": spread_of([rate / spread_of(bound).median for rate in rates["ours"]]),
    }
    total = sum(phases.values())
    for phase, seconds in phases.items():
        print(f"  {phase:20s} {seconds * 1e3:8.1f} ms {seconds / total:7.1%}")
    told = {
        "num_parameters_of_reference": sum(p.numel() for p in _reference(config, manifest).parameters()),
        "tokens_per_step": _num_predictions(batches) / len(batches),
        "forward_flop_per_token": _flop(config, manifest, batches),
        "phase_ms": {phase: seconds * 1e3 for phase, seconds in phases.items()},
    }
    return figures, told


def _rates(
    config: RunConfig, manifest: Manifest, state: TrainState, batches: list[SequenceBatch]
) -> dict[str, list[float]]:
    """Both sides train on the same batches, which are in memory: reading them is a phase of its own."""
    reference = _reference(config, manifest)
    optimizer = torch.optim.AdamW(
        reference.parameters(),
        lr=config.optimizer.lr,
        betas=(config.optimizer.beta1, config.optimizer.beta2),
        weight_decay=config.optimizer.weight_decay,
    )
    num_negatives = config.loss.num_negatives if isinstance(config.loss, SampledConfig) else 0
    num_tokens = _num_predictions(batches)

    def ours() -> None:
        for batch in batches:
            train_step(state, batch)
            state.step += 1

    def theirs() -> None:
        for batch in batches:
            reference_step(reference, optimizer, batch, num_negatives)

    return interleaved(
        {"ours": lambda: num_tokens / seconds_of(ours), "reference": lambda: num_tokens / seconds_of(theirs)},
        NUM_ROUNDS,
    )


def _reference(config: RunConfig, manifest: Manifest) -> PaddedReference:
    return PaddedReference(config.model, manifest.num_items, config.data.max_history)


def _num_predictions(batches: list[SequenceBatch]) -> int:
    return sum(batch.num_tokens - batch.num_users for batch in batches)


def _num_candidates(config: RunConfig, manifest: Manifest) -> int:
    return config.loss.num_negatives if isinstance(config.loss, SampledConfig) else manifest.num_items


def _flop(config: RunConfig, manifest: Manifest, batches: list[SequenceBatch]) -> dict[str, float]:
    lengths = torch.cat([batch.lengths for batch in batches]) - 1
    flop = token_flop(config.model, lengths, _num_candidates(config, manifest))
    return {"blocks": flop.blocks, "attention": flop.attention, "head": flop.head}


def _bound(config: RunConfig, manifest: Manifest, batches: list[SequenceBatch]) -> float:
    lengths = torch.cat([batch.lengths for batch in batches]) - 1
    num_candidates = _num_candidates(config, manifest)
    flop = token_flop(config.model, lengths, num_candidates)
    per_step = _num_predictions(batches) // len(batches)
    chunk = config.loss.chunk_tokens if isinstance(config.loss, FullSoftmaxConfig) else per_step
    return bound_tokens_per_s(config.model, flop, per_step, num_candidates, chunk)
