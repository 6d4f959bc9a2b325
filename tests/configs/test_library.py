"""Composing leaves the process as it was: inside of a Hydra application, and in threads."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra

from configs.errors import ConfigError
from configs.load import load_cluster, load_config
from configs.schema.cluster import SlurmConfig

APPLICATION = """
import hydra

@hydra.main(config_path="conf", config_name="conf", version_base=None)
def main(mine):
    from configs.load import load_config
    from hydra.core.hydra_config import HydraConfig
    print(load_config(["num_epochs=3"]).num_epochs, mine.a, HydraConfig.get().job.name)

main()
"""
ROOT = Path(__file__).resolve().parents[2]


def test_a_config_composes_inside_a_hydra_application(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "conf.yaml").write_text("a: 5\n")
    (tmp_path / "app.py").write_text(APPLICATION)
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["3", "5", "app"], done.stderr
    assert "Error" not in done.stderr


def test_an_application_keeps_its_own_state(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("defaults:\n  - model: sasrec\n")
    ConfigStore.instance().store(group="model", name="sasrec", node={"theirs": 1})
    before = dict(ConfigStore.instance().repo)
    with initialize_config_dir(config_dir=str(tmp_path), version_base=None):
        own = GlobalHydra.instance().hydra
        load_config(["num_epochs=3"])
        assert GlobalHydra.instance().hydra is own
        assert compose("conf") == {"model": {"theirs": 1}}
    assert ConfigStore.instance().repo == before
    del ConfigStore.instance().repo["model"]


def test_threads_compose_each_their_own() -> None:
    with ThreadPoolExecutor(8) as pool:
        configs = list(pool.map(lambda number: load_config([f"num_epochs={number}"]), range(1, 25)))
    assert [config.num_epochs for config in configs] == list(range(1, 25))


@pytest.fixture
def own_files(tmp_path: Path) -> Path:
    """A folder of a user's own: an experiment, a data set and a cluster."""
    files = {
        "experiment/mine": "# @package _global_\ndefaults:\n  - override /data: ours\nnum_epochs: 3\n",
        "data/ours": "defaults:\n  - log\nmax_history: 7\n",
        "cluster/ours": "defaults:\n  - slurm\npartition: big\n",
        "experiment/smoke": "# @package _global_\nnum_epochs: 9\n",
    }
    for name, text in files.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return tmp_path


def test_a_folder_of_ones_own_adds_experiments_and_data(own_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_files.parent)
    for named in (str(own_files), own_files.name):
        config = load_config([f"config_dir={named}", "experiment=mine"])
        assert (config.num_epochs, config.data.max_history) == (3, 7)


def test_a_file_of_ones_own_comes_before_ours(own_files: Path) -> None:
    assert load_config([f"config_dir={own_files}", "experiment=smoke"]).num_epochs == 9


def test_a_folder_of_ones_own_adds_clusters(own_files: Path) -> None:
    cluster = load_cluster([f"config_dir={own_files}", "cluster=ours"])
    assert isinstance(cluster, SlurmConfig)
    assert cluster.partition == "big"


def test_a_folder_that_is_not_there_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"config_dir={tmp_path}/no is no folder"):
        load_config([f"config_dir={tmp_path}/no"])


@pytest.mark.parametrize("text", ["num_epochs: [", "num_epochs: ten\n", "num_epoch: 3\n", "defaults:\n  - nothing\n"])
def test_a_wrong_file_of_ones_own_is_one_line(own_files: Path, text: str) -> None:
    (own_files / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
    with pytest.raises(ConfigError) as caught:
        load_config([f"config_dir={own_files}", "experiment=mine"])
    assert "\n" not in str(caught.value)
