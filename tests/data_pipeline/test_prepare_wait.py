"""Runs of a sweep that share a store which is not there: one prepares it, the others wait, and none fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.prepare.store_lease import writing_store
from data_pipeline.store.manifest import load_manifest

REPOSITORY = Path(__file__).parents[2]
SYNTHETIC = ["data=synthetic", "data.synthetic.num_users=300", "data.synthetic.num_items=50"]


def started(*words: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "data_pipeline.prepare", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [*SYNTHETIC, f"data.log={tmp_path}/log.parquet", f"data.store={tmp_path}/store"]


def test_four_at_once_make_one_log_and_one_store(tmp_path: Path, words: list[str]) -> None:
    all_at_once = [started("--wait", *words) for _ in range(4)]
    told = [each.communicate()[0] for each in all_at_once]
    assert [each.returncode for each in all_at_once] == [0] * 4, told
    assert load_manifest(str(tmp_path / "store")).num_users == 300
    assert {each.name for each in tmp_path.iterdir()} >= {"log.parquet", "store"}
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))


def test_who_waits_goes_on_when_the_other_one_ends(tmp_path: Path, words: list[str]) -> None:
    """The other one ends without a store: the one that waits prepares by itself."""
    with writing_store(tmp_path / "store", "held"):
        waiting = started("--wait", *words)
        assert waiting.stdout is not None
        line = next(line for line in waiting.stdout if line.startswith("waiting: "))
        assert f"data.store={tmp_path}/store is being written by process {os.getpid()} of" in line
        refused = started(*words)
        assert f"is being written by process {os.getpid()} of" in refused.communicate()[0]
        assert refused.returncode == 2
    told, _ = waiting.communicate()
    assert waiting.returncode == 0, told
    assert load_manifest(str(tmp_path / "store")).num_users == 300
