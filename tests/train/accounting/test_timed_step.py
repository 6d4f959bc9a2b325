"""A step is cut up into what it does, and nothing of it changes by that, to the bit."""

from contextlib import closing
from pathlib import Path

import pytest

from configs.load import load_config
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from train.accounting.phase_clock import TRAINING, Phase, PhaseClock
from train.accounting.timed_step import TimedCollectives
from train.build import build_state
from train.distributed.collectives import ProcessGroupCollectives, process_group
from train.step import train_step

SMALL = [
    *("model.embedding_dim=8", "data.max_history=8", "data.global_batch_size=64"),
    *("hardware.num_ranks=1", "hardware.num_threads=1"),
]
KINDS = {
    "whole": [],
    "in stages": ["optimizer.clip_norm=0.1", "hardware.micro_batches=2"],
    "hidden events": ["model=bert4rec"],
    "times": ["model=hstu"],
    "recurrent": ["model=gru4rec"],
    "of users": ["model=dot", "loss=bce"],
    "sampled": ["loss=sampled_softmax", "model.user_input=first_token"],
}


def losses(words: list[str], clock: PhaseClock | None) -> list[float]:
    """Of three steps; each says where it stands to ``clock``."""
    config = load_config(words)
    with process_group(config.hardware) as device:
        collectives = ProcessGroupCollectives() if clock is None else TimedCollectives(clock)
        manifest = load_manifest(config.data.store)
        state = build_state(config, manifest, 3, collectives, device, clock=clock)
        stream = SequenceStream(config.data, seed=1, rank=0, world_size=1, features=())
        found = []
        with closing(stream.batches()) as batches:
            for _ in range(3):
                found.append(float(train_step(state, next(batches)).loss))
                state.step += 1
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_same_to_the_bit_and_have_all_their_phases(kind: str, store: str, tmp_path: Path):
    words = [*SMALL, f"data.store={store}", f"run_dir={tmp_path}", *KINDS[kind]]
    clock = PhaseClock()
    clock.begin_work()
    assert losses(words, clock) == losses(words, None)
    found = {phase for phase, seconds in clock.seconds().items() if seconds and phase in TRAINING}
    assert found >= {Phase.LOOKUP, Phase.ENCODER, Phase.LOSS, Phase.OPTIMIZER}
