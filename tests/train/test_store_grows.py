"""A store that grows while ranks train on it changes nothing for them."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from logs import random_log

from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import load_manifest, versions_of
from runs import logged_steps

NUM_APPENDS = 5
TRAIN = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main(sys.argv[1:]))", "train"]


def train_on(store: Path, run_dir: Path) -> subprocess.Popen[bytes]:
    """A run of two ranks, with a validation in each epoch."""
    words = [
        *("model.embedding_dim=8", "model.num_blocks=1", "model.num_heads=1", "hardware.num_ranks=2"),
        *("num_epochs=60", "data.global_batch_size=8", "log_every_steps=1", "evaluation.patience=1000"),
        *(f"data.store={store}", f"run_dir={run_dir}"),
    ]
    return subprocess.Popen([*TRAIN, *words])


@pytest.mark.slow
def test_appends_at_random_moments_of_a_run_do_not_change_it(tmp_path: Path):
    log, store = tmp_path / "log.parquet", tmp_path / "store"
    random_log(900, num_users=80).write_parquet(log)
    first = prepare(DataConfig(log=str(log), store=str(store)))
    assert train_on(store, tmp_path / "quiet").wait() == 0
    draw = np.random.default_rng(0)
    run = train_on(store, tmp_path / "busy")
    while not (tmp_path / "busy" / "identity.json").is_file():
        assert run.poll() is None, "the run has begun"
        time.sleep(0.05)
    for k in range(NUM_APPENDS):
        time.sleep(float(draw.uniform(0, 2)))  # the moment: nothing waits for it
        random_log(200, seed=k + 1, num_users=90, num_items=40).write_parquet(tmp_path / f"{k}.parquet")
        prepare(DataConfig(log=f"{tmp_path}/{k}.parquet", store=str(store), append=True))
    assert run.wait() == 0
    assert versions_of(str(store)) == list(range(1, NUM_APPENDS + 2))
    quiet, busy = (logged_steps(tmp_path / name) for name in ("quiet", "busy"))
    assert [row["loss"] for row in quiet] == [row["loss"] for row in busy]
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("quiet", "busy")]
    assert summaries[0]["quality"] == summaries[1]["quality"]
    assert summaries[0]["data"] == summaries[1]["data"]
    assert summaries[0]["data"]["version"] == 1
    assert load_manifest(str(store), 1) == first
