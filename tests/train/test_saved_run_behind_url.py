"""A run in a bucket is read as it says it was, and looking at it changes nothing there."""

from pathlib import Path

import pytest

from configs.load import load_config
from data_pipeline.store.paths import ObjectPath
from launch.saved_run import saved_run
from object_store import BUCKET, FaultyProxy
from stores import write_store
from train.evaluation.preflight import main as evaluation_preflight
from train.preflight import main as preflight
from train.run_dir.identity import load_run_config, mark_stopped, open_run_folder
from train.run_dir.remote_copy import remote_run_of

URL = f"s3://{BUCKET}/runs/saved"


@pytest.fixture
def overrides(tmp_path: Path, proxy: FaultyProxy) -> list[str]:
    """Of a run in the bucket that was stopped by a signal."""
    store = write_store(tmp_path / "store", [[1, 2, 3]], [[1, 2, 3]])
    words = [f"data.store={store}", f"run_dir={URL}", f"scratch_dir={tmp_path / 'writer'}"]
    words += ["loss=gbce", "hardware.num_ranks=3"]
    config = load_config(words)
    remote = remote_run_of(config)
    assert remote is not None
    mark_stopped(open_run_folder(config, words, {"data.fingerprint": "tiny"}), 7)
    remote.send_records()
    return words


def test_it_is_composed_from_its_own_config(overrides: list[str], tmp_path: Path):
    assert load_run_config(URL) == load_config([*overrides, "scratch_dir="])
    config, words = saved_run([f"run_dir={URL}", f"scratch_dir={tmp_path / 'reader'}", "evaluation.batch_size=9"])
    assert (config.hardware.num_ranks, config.evaluation.batch_size) == (3, 9)
    assert config.run_dir == URL
    assert f"run_dir={URL}" in words


def test_looking_at_it_changes_nothing(overrides: list[str], tmp_path: Path):
    before = {str(each): each.read_bytes() for each in ObjectPath(URL).files_below()}
    assert any(name.endswith("STOPPED") for name in before)
    assert preflight(overrides) == 0
    assert preflight([*overrides, "optimizer.lr=0.5"]) == 2
    reader = [f"run_dir={URL}", f"scratch_dir={tmp_path / 'reader'}"]
    assert evaluation_preflight(reader) == 2, "it has no model yet"
    assert evaluation_preflight([*reader, "data.split=global_time"]) == 2
    assert {str(each): each.read_bytes() for each in ObjectPath(URL).files_below()} == before
