"""A tiny export that the tests of the server share."""

import pytest

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
