"""The page "Add a model", followed to the letter; and that a new encoder touches no more files than it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs.schema import DataConfig
from configs.schema.model import ENCODERS
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.synthetic import write_log
from runs import tiny_run

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "add_a_model.md"
PACKAGES = ("configs", "data_pipeline", "models", "train", "launch", "benchmarks")
FILE = re.compile(r"^```(?:toml|py)\n# (\S+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
USE = """
import json, sys
from configs.errors import exit_code_of
from train.export.export import main as export
from train.run import main as train
run, *overrides = json.loads(sys.argv[1])
assert train([*overrides, f"run_dir={run}"]) == 0
assert train([*overrides, f"run_dir={run}", "num_steps=4"]) == 0
assert export([f"run_dir={run}"]) == 0
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, installed as the page says, into a folder of its own."""
    folder = tmp_path_factory.mktemp("outside")
    for name, text in FILE.findall(PAGE.read_text()):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    line = next(line for line in PAGE.read_text().splitlines() if line.startswith("pip install "))
    words = [sys.executable, "-m", *line.split(), "--target", "site", "--quiet"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def python(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=ROOT
    )


@pytest.mark.slow
def test_an_encoder_of_another_package_trains_resumes_and_is_exported(installed: Path, tmp_path: Path) -> None:
    log, store = str(tmp_path / "log.parquet"), str(tmp_path / "store")
    write_log(SyntheticConfig(num_users=80, num_items=20, mean_length=8), log)
    prepare(DataConfig(log=log, store=store))
    keys = [each for each in tiny_run(store, tmp_path, 2) if not each.startswith(("run_dir", "model.num_"))]
    overrides = [*keys, "model=recency", "model.decay=0.9"]
    done = python(installed, "-c", USE, json.dumps([str(tmp_path / "run"), *overrides]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "decay: 0.9" in (tmp_path / "run" / "config.yaml").read_text()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["model"] == "recency"
    without = python(tmp_path, "-m", "launch", "evaluate", f"run_dir={tmp_path / 'run'}")
    assert without.returncode == 2
    assert without.stderr.count("\n") == 1
    assert "model=recency" in without.stderr


def test_its_keys_are_described_and_checked_as_ours(installed: Path) -> None:
    refused = python(installed, "-m", "launch", "config", "model=recency", "model.decay=7")
    assert refused.returncode == 2
    assert "model.decay=7.0 must be at most 1" in refused.stderr
    page = python(installed, "-m", "launch", "config", "--reference").stdout
    assert "| `model.decay` | `0.8` | With `model=recency`: What an event counts" in page


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("sasrec = recency_config:RecencyConfig", "there is an encoder of that name already"),
        ("other = nowhere:Config", "cannot be imported"),
        ("other = pathlib:Path", "is no subclass of configs.schema.model.OutsideConfig"),
    ],
)
def test_an_entry_that_is_no_encoder_is_refused_by_its_name(
    installed: Path, tmp_path: Path, entry: str, named: str
) -> None:
    (tmp_path / "wrong-1.dist-info").mkdir()
    (tmp_path / "wrong-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong\nVersion: 1\n")
    (tmp_path / "wrong-1.dist-info" / "entry_points.txt").write_text(f"[shardrec.encoders]\n{entry}\n")
    done = python(Path(f"{installed}{os.pathsep}{tmp_path}"), "-m", "launch", "config", "seed=1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert entry in done.stderr
    assert named in done.stderr


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "sasrec"])  # the default is named by more
def test_an_encoder_is_one_module_one_dataclass_and_one_case(name: str) -> None:
    config = ENCODERS[name].__name__
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    naming = {str(file.relative_to(ROOT)) for file in files if re.search(rf"\b{config}\b", file.read_text())}
    assert {"configs/schema/model.py", "models/encoders/build.py"} <= naming
    others = naming - {"configs/schema/model.py", "models/encoders/build.py"}
    assert len(others) <= 1
    assert all(file.startswith("models/encoders/") for file in others)
