"""Tiny exports that the tests of the server share."""

from pathlib import Path

import pytest
from feature_log import run_with_features

from prepared_store import synthetic_store
from runs import tiny_run
from served_client import Exported


@pytest.fixture(scope="package")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of a run over 150 users that was trained in this process."""
    from train.export.export import main as export
    from train.run import main as train

    folder = tmp_path_factory.mktemp("served")
    store = synthetic_store(folder)
    assert train(tiny_run(store, folder / "run", num_steps=4)) == 0
    assert export([f"run_dir={folder / 'run'}"]) == 0
    return Exported(folder / "run" / "export", store)


@pytest.fixture(scope="package")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Of a run that reads the features of events."""
    from train.export.export import main as export

    run = run_with_features(tmp_path_factory.mktemp("featured"))
    assert export([f"run_dir={run}"]) == 0
    return Exported(Path(run) / "export", str(Path(run).parent / "store"))
