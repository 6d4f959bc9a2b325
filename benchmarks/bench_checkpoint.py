"""What a checkpoint costs: steps with one being written against steps without, and seconds a GiB to save and to load.

``python -m benchmarks checkpoint data.store=STORE ...``; one process of two threads, an item table of 2 million rows.
The folder of the checkpoints is ``run_dir``'s, so that its disk is the one that is measured.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Spread, interleaved, paired_ratio, record_name, seconds_of, spread_of, write_result
from configs.errors import ConfigError
from configs.load import load_config
from configs.schema import FullSoftmaxConfig, RunConfig
from configs.url import is_url
from data_pipeline.batch import SequenceBatch
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import ProcessGroupCollectives, process_group
from train.progress import RunProgress
from train.run import build_state
from train.state import TrainState
from train.step import train_step

NUM_ROUNDS = 9
STEPS_PER_ROUND = 50
TABLE_ROWS = 2_000_000
DEFAULTS = ["hardware.num_ranks=1", "hardware.num_threads=2", "loss=sampled_softmax", "run_dir=runs/bench_checkpoint"]


def main(overrides: list[str]) -> None:
    """Time rounds of 50 steps with and without a save at their start; write ``results/checkpoint.json``."""
    config = load_config([*DEFAULTS, *overrides])
    _check(config)
    manifest = replace(load_manifest(config.data.store), num_items=TABLE_ROWS)
    stream = SequenceStream(config.data, seed=config.seed, rank=0, world_size=1)
    with process_group(config.hardware) as device, closing(stream.batches()) as batches:
        state = build_state(config, manifest, 10_000, ProcessGroupCollectives(), device)
        try:
            figures = _figures(state, batches, config)
        finally:
            shutil.rmtree(config.run_dir, ignore_errors=True)
    notes = {
        "table_rows": TABLE_ROWS,
        "embedding_dim": config.model.embedding_dim,
        "steps_per_round": STEPS_PER_ROUND,
    }
    write_result(record_name("checkpoint", config.hardware), overrides, figures, notes)


def _check(config: RunConfig) -> None:
    if config.hardware.num_ranks != 1 or isinstance(config.loss, FullSoftmaxConfig):
        raise ConfigError(
            f"hardware.num_ranks={config.hardware.num_ranks}, loss: the checkpoint benchmark is one process with a "
            f"sampled loss, since most rows of its table are in no store; set hardware.num_ranks=1"
        )
    if is_url(config.run_dir):
        raise ConfigError(
            f"run_dir={config.run_dir} is a URL; the checkpoint benchmark measures a disk of this machine"
        )
    if Path(config.run_dir).exists():
        raise ConfigError(f"run_dir={config.run_dir} exists; the checkpoint benchmark writes and removes its own")


def _figures(state: TrainState, batches: Iterator[SequenceBatch], config: RunConfig) -> dict[str, Spread]:
    with DiskCheckpointer(config.run_dir, config.checkpoint) as checkpointer:

        def steps() -> None:
            for _ in range(STEPS_PER_ROUND):
                train_step(state, next(batches))
                state.step += 1

        def saving_steps() -> None:
            checkpointer.save(state, RunProgress())
            steps()
            checkpointer.wait()

        def save() -> None:
            checkpointer.save(state, RunProgress())
            checkpointer.wait()

        rounds = interleaved(
            {"with": lambda: seconds_of(saving_steps), "without": lambda: seconds_of(steps)}, NUM_ROUNDS
        )
        costs = interleaved(
            {
                "save": lambda: seconds_of(save),
                "load": lambda: seconds_of(lambda: checkpointer.restore_latest(state)),
            },
            NUM_ROUNDS,
        )
        gib = sum(path.stat().st_size for path in checkpointer.steps()[-1].iterdir()) / 2**30
    return {
        "steps_s": spread_of(rounds["without"]),
        "steps_with_a_save_s": spread_of(rounds["with"]),
        "steps_with_a_save_against_without": paired_ratio(rounds["with"], rounds["without"]),
        "checkpoint_gib": spread_of([gib]),
        "save_s_per_gib": spread_of([each / gib for each in costs["save"]]),
        "load_s_per_gib": spread_of([each / gib for each in costs["load"]]),
    }
