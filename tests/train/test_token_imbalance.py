"""A run tells how unevenly its tokens lay on ranks, as counted from the batches, also where it was interrupted."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from configs.load import load_config
from data_pipeline.stream.sequence_stream import SequenceStream
from ranks import run_ranks
from runs import run_here

RUN = [
    "model.embedding_dim=16",
    "data.max_history=12",
    "data.global_batch_size=32",
    "log_every_steps=7",
    "checkpoint.every_steps=5",
    "evaluation.every_steps=10",
]


@pytest.mark.parametrize("stops", [[20], [10, 20]])
def test_the_summary_tells_the_imbalance_of_all_steps(store: str, tmp_path: Path, stops: list[int]):
    overrides = [f"data.store={store}", f"run_dir={tmp_path / 'run'}", *RUN]
    for num_steps in stops:
        run_ranks(2, run_here, [*overrides, f"num_steps={num_steps}"])
    throughput = json.loads((tmp_path / "run" / "summary.json").read_text())["throughput"]
    tokens = np.array([tokens_of(overrides, rank) for rank in range(2)])
    assert throughput["tokens"] == tokens.sum()
    assert throughput["token_imbalance"] == pytest.approx(2 * tokens.max(axis=0).sum() / tokens.sum())
    assert throughput["token_imbalance"] > 1


def tokens_of(overrides: list[str], rank: int) -> list[int]:
    """Predictions of ``rank`` in each of the first 20 steps."""
    config = load_config(overrides)
    batches = SequenceStream(config.data, seed=config.seed, rank=rank, world_size=2).batches()
    return [batch.num_tokens - batch.num_users for batch in islice(batches, 20)]
