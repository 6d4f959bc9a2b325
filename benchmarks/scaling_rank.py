"""One rank of ``bench scaling``: trains as many steps as it is asked for, by the run's own loop, and tells the time.

``python -m benchmarks.scaling_rank RANK WORLD_SIZE MEETING key=value ...``. A line of JSON on stdin is a
:class:`~benchmarks.rank_group.Request`; the answer is one on stdout. The group lives until stdin ends.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import torch
import torch.distributed as dist

from benchmarks.collective_profile import Collective, profiled
from benchmarks.rank_group import Answer, Request
from configs.load import load_config
from configs.schema import RunConfig
from data_pipeline.batch import SequenceBatch
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from train.accounting.ledger import Ledger, Spent
from train.accounting.memory import peak_memory_bytes
from train.accounting.phase_clock import PhaseClock
from train.accounting.timed_step import TimedCollectives
from train.build import build_state
from train.checkpoint.checkpointer import DiskCheckpointer
from train.distributed.collectives import control_group, process_group
from train.distributed.environment import use_loopback
from train.loop import train
from train.metrics_logger import RunTracker
from train.progress import RunProgress
from train.state import TrainState
from train.supervision.stop_signals import StopVote

NEVER = 10**9


def main(arguments: list[str]) -> None:
    """Serve requests until stdin ends."""
    rank, world_size, meeting, *overrides = arguments
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the run's own lines are no answers
    config = load_config(overrides)
    use_loopback()
    backend = "gloo" if config.hardware.device == "cpu" else "nccl"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=int(rank), world_size=int(world_size))
    with process_group(config.hardware) as device:
        _serve(config, device, answers)
    dist.destroy_process_group()


def _serve(config: RunConfig, device: torch.device, answers: TextIO) -> None:
    clock = PhaseClock()
    collectives = TimedCollectives(clock)
    state = build_state(config, load_manifest(config.data.store), NEVER, collectives, device, clock=clock)
    ledger = Ledger(clock, config.hardware, collectives)
    stream = SequenceStream(
        config.data,
        seed=config.seed,
        rank=collectives.rank,
        world_size=collectives.world_size,
        features=config.features_of_events,
    )
    config.checkpoint.every_steps = NEVER
    folder, progress = Path(config.run_dir), RunProgress()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        closing(stream.batches()) as batches,
        StopVote(control_group()) as stop,
        DiskCheckpointer(folder, config.checkpoint) as checkpointer,
        RunTracker(
            folder, progress, ledger, Spent(), every_steps=config.log_every_steps, num_steps=NEVER, state=state
        ) as tracker,
        ledger,
    ):
        clock.begin_work()

        def steps(num_steps: int) -> None:
            _train(state, config, batches, progress, num_steps, tracker, checkpointer, stop)

        for line in sys.stdin:
            answers.write(json.dumps(asdict(_answer(Request(**json.loads(line)), state, tracker, steps))) + "\n")
            answers.flush()


def _train(
    state: TrainState,
    config: RunConfig,
    batches: Iterator[SequenceBatch],
    progress: RunProgress,
    num_steps: int,
    tracker: RunTracker,
    checkpointer: DiskCheckpointer,
    stop: StopVote,
) -> None:
    """``num_steps`` steps of the run's own loop, without validations."""
    train(
        state,
        batches,
        progress,
        num_steps=state.step + num_steps,
        patience=1,
        nonfinite=config.nonfinite,
        is_stop_agreed=stop.is_agreed,
        tracker=tracker,
        checkpointer=checkpointer,
        validator=None,
    )


def _answer(request: Request, state: TrainState, tracker: RunTracker, steps: Callable[[int], None]) -> Answer:
    tokens, padded = tracker.num_tokens, tracker.padded_tokens
    cpu_s, start_s = time.process_time(), time.perf_counter()
    found: dict[str, Collective] = {}
    if request.is_profiled:
        found = profiled(lambda: steps(request.num_steps))
    else:
        steps(request.num_steps)
    if state.device.type == "cuda":
        torch.cuda.synchronize()
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    tracker.account(RunProgress())
    peak_bytes = peak_memory_bytes(state.device)
    return Answer(tracker.num_tokens - tokens, seconds, cpu_s, peak_bytes, tracker.padded_tokens - padded, found)


if __name__ == "__main__":
    main(sys.argv[1:])
