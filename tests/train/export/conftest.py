"""A tiny trained run that the tests of export share."""

from pathlib import Path

import pytest

from configs.schema import DataConfig
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.synthetic import write_log
from runs import tiny_run
from train.run import main


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over 1,500 users, trained in this process until it is better than chance."""
    folder = tmp_path_factory.mktemp("exported")
    log, store = str(folder / "log.parquet"), str(folder / "store")
    write_log(SyntheticConfig(num_users=1500, num_items=80, mean_length=10), log)
    prepare(DataConfig(log=log, store=store))
    overrides = tiny_run(store, folder / "run", num_steps=60)
    more = ["model.embedding_dim=16", "model.num_blocks=2", "evaluation.every_steps=30", "checkpoint.every_steps=60"]
    assert main([*overrides, *more, "data.global_batch_size=256", "optimizer.lr=0.01"]) == 0
    return folder / "run"


@pytest.fixture(scope="package")
def exported(run: Path) -> Path:
    """The run's export with float32 tables."""
    from train.export.export import main as export

    assert export([f"run_dir={run}"]) == 0
    return run / "export"
