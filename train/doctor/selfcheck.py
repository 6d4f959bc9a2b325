"""``python -m train.doctor.selfcheck DEVICE``: the smallest real training, on one rank and on two; do they agree?

A made-up log is prepared, SASRec's item table is cut row-wise, and the ranks are started as ``shardrec train`` starts
them. The last line on stdout is a :class:`Selfcheck`
as JSON. What goes wrong ends the process as it would end a run.
"""

import json
import math
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from configs.load import load_config
from configs.schema import DataConfig, RunConfig
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream
from data_pipeline.synthetic import write_log
from train.distributed.collectives import ProcessGroupCollectives, process_group
from train.run import build_state
from train.sharding import placement_of
from train.step import train_step
from train.supervision.elastic_agent import Node, start_ranks
from train.supervision.process_exit import run_and_exit

NUM_RANKS = 2
NUM_STEPS = 2
"""The second loss sees what the first step has changed."""
TOLERANCE = 1e-5
"""Relative: the ranks add the same numbers in another order."""
TINY = (
    "sharding=row_wise model.embedding_dim=16 model.feed_forward_dim=16 model.dropout=0 model.attention_dropout=0 "
    f"data.max_history=12 data.global_batch_size=32 hardware.num_ranks={NUM_RANKS} hardware.timeout_s=20"
).split()


@dataclass(frozen=True, slots=True)
class RankReport:
    """What one rank saw."""

    losses: list[float]
    placement: str
    peak_gib: float
    """The most memory that the process held."""


@dataclass(frozen=True, slots=True)
class Selfcheck:
    """Losses of the same steps on one rank and on each of two, and what these two took at most."""

    one_rank: list[float]
    two_ranks: list[list[float]]
    placement: str
    peak_gib_per_rank: float

    @property
    def agrees(self) -> bool:
        """Whether every loss is finite and every rank's are those of one rank."""
        return all(
            math.isfinite(loss) and math.isclose(loss, expected, rel_tol=TOLERANCE)
            for losses in self.two_ranks
            for loss, expected in zip(losses, self.one_rank, strict=True)
        )


def selfcheck(device: str) -> int:
    """Train on one rank in this process, then on two in processes of their own; print a :class:`Selfcheck`.

    Returns 0, 1 where the losses do not agree, or what the ranks returned, which have told why on stderr.
    """
    with tempfile.TemporaryDirectory(prefix="shardrec-selfcheck-") as folder:
        overrides = [*TINY, f"data.store={_tiny_store(folder)}", f"run_dir={folder}", f"hardware.device={device}"]
        config = load_config(overrides)
        one = train_here(config)
        code = start_ranks(Node(num_ranks=NUM_RANKS), "train.doctor.selfcheck", config, overrides)
        if code:
            return code
        two = [RankReport(**json.loads(_report_path(config, rank).read_text())) for rank in range(NUM_RANKS)]
    found = Selfcheck(
        one_rank=one.losses,
        two_ranks=[report.losses for report in two],
        placement=two[0].placement,
        peak_gib_per_rank=max(report.peak_gib for report in two),
    )
    print(json.dumps(asdict(found) | {"agrees": found.agrees}), flush=True)
    return 0 if found.agrees else 1


def _tiny_store(folder: str) -> str:
    log, store = f"{folder}/log.parquet", f"{folder}/store"
    write_log(SyntheticConfig(num_users=64, num_items=80, mean_length=8), log)
    prepare(DataConfig(log=log, store=store))
    return store


def train_here(config: RunConfig) -> RankReport:
    """Train ``NUM_STEPS`` steps on the ranks that there are. Collective."""
    with process_group(config.hardware) as device:
        collectives = ProcessGroupCollectives()
        manifest = load_manifest(config.data.store)
        stream = SequenceStream(
            config.data, seed=config.seed, rank=collectives.rank, world_size=collectives.world_size
        )
        state = build_state(config, manifest, NUM_STEPS, collectives, device)
        losses = []
        with closing(stream.batches()) as batches:
            for _ in range(NUM_STEPS):
                losses.append(float(train_step(state, next(batches)).loss))
                state.step += 1
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return RankReport(losses, placement_of(state.model), peak_gib)


def main(arguments: Sequence[str]) -> int:
    """Entry of the command, and of the ranks that it starts: 0, or 1 where the losses do not agree."""
    if dist.is_torchelastic_launched():
        config = load_config(arguments)
        report = train_here(config)
        _report_path(config, int(os.environ["RANK"])).write_text(json.dumps(asdict(report)))
        return 0
    return selfcheck(*arguments)


def _report_path(config: RunConfig, rank: int) -> Path:
    return Path(config.run_dir) / f"rank-{rank}.json"


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_and_exit(lambda: main(sys.argv[1:]))
