"""A run whose store is behind ``s3://`` learns and ranks what the run on the local copy does, faults or not."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from data_pipeline.store.paths import ObjectPath
from object_store import BUCKET, FaultyProxy, connect, s3_server
from prepared_store import synthetic_store
from ranks import run_ranks
from train.evaluate import evaluate
from train.run import run

RUN = [
    "model.embedding_dim=16",
    "model.feed_forward_dim=16",
    "data.max_history=12",
    "data.global_batch_size=32",
    "num_steps=6",
    "log_every_steps=1",
    "sharding=row_wise",
]


@pytest.mark.slow
def test_a_run_on_a_store_behind_a_url_equals_the_run_on_the_local_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = synthetic_store(tmp_path)
    with s3_server() as port:
        proxy = FaultyProxy(port)
        connect(monkeypatch, proxy.port)
        for path in sorted(Path(local).rglob("*.*")):
            ObjectPath(f"s3://{BUCKET}/store/{path.relative_to(local).as_posix()}").send(path)
        proxy.every(4, "500", "short", "cut")
        runs = [
            [*RUN, f"data.store={store}", f"run_dir={tmp_path / name}"]
            for name, store in (("there", f"s3://{BUCKET}/store"), ("here", local))
        ]
        run_ranks(2, train_and_evaluate, runs)
        assert set(proxy.done) == {"500", "short", "cut"}
        proxy.close()
    assert learnt(tmp_path / "there") == learnt(tmp_path / "here")
    assert len(learnt(tmp_path / "there")[0]) == 6


def learnt(folder: Path) -> tuple[list[float], dict[str, Any], dict[str, Any]]:
    """Losses of every step, and what the run and a later evaluation have found of the test events."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())["quality"]
    return (
        [line["loss"] for line in lines if "loss" in line],
        summary,
        json.loads((folder / "evaluation.json").read_text()),
    )


def train_and_evaluate(runs: list[list[str]]) -> None:
    for overrides in runs:
        config = load_config(overrides)
        run(config, overrides)
        evaluate(config)


@pytest.mark.parametrize("key", ["scratch_dir", "data.spill_dir"])
def test_a_url_where_only_a_local_folder_will_do_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}=s3://bucket/run.*local"):
        load_config([f"{key}=s3://bucket/run"])
