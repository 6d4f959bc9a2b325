"""From a wheel, in the folder of a user whose own modules are called like ours: ours are the ones that run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOREIGN = ("configs", "models", "launch", "benchmarks", "data_pipeline")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="setuptools builds the wheel"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel installs, and nothing of this repository's folder."""
    folder = tmp_path_factory.mktemp("wheel")
    copied = folder / "source"
    files = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in [*files.splitlines(), "shardrec.py"]:
        source = REPOSITORY / name
        if name.startswith(("tests/", "docs/")) or not source.is_file():
            continue
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes(source.read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(copied)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    return target


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder: packages of our names, and a ``train.py``."""
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('the foreign {name} was imported')\n")
    return tmp_path


def run(installed: Path, project: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """``command`` in ``project``, whose modules come first, as with PYTHONPATH=. or in a notebook."""
    path = os.pathsep.join([str(project), str(installed)])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"} | {"PYTHONPATH": path}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_the_command_uses_its_own_packages(installed: Path, project: Path) -> None:
    (project / "train.py").write_text("raise SystemExit('the foreign train was imported')\n")
    done = run(installed, project, sys.executable, str(installed / "bin" / "shardrec"), "config", "seed=5")
    assert done.returncode == 0, done.stderr
    assert "seed: 5" in done.stdout


@pytest.mark.parametrize("words", [["-m", "train"], ["-m", "shardrec", "train"]])
def test_training_uses_its_own_packages(words: list[str], installed: Path, project: Path) -> None:
    done = run(installed, project, sys.executable, *words, "data.store=no/such/store", "hardware.num_ranks=1")
    assert done.returncode == 2, done.stderr
    assert "foreign" not in done.stdout + done.stderr
    assert "no/such/store" in done.stderr


def test_a_foreign_module_that_was_imported_before_ours_is_named(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "configs.py").write_text("")
    (tmp_path / "sitecustomize.py").write_text("import configs\n")
    done = run(installed, tmp_path, sys.executable, str(installed / "bin" / "shardrec"), "config")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"ConfigError: {tmp_path}/configs.py is imported as 'configs', which is the name of a package of Shardrec; "
        f"rename it"
    ]


def test_a_benchmark_writes_below_the_current_folder(installed: Path, tmp_path: Path) -> None:
    before = sorted(installed.rglob("*"))
    program = (
        "from benchmarks.harness import spread_of, write_result; write_result('x', [], {'a': spread_of([1.0])}, {})"
    )
    done = run(installed, tmp_path, sys.executable, "-B", "-c", program)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "benchmarks" / "results" / "x.json").is_file()
    assert [each for each in sorted(installed.rglob("*")) if "__pycache__" not in each.parts] == [
        each for each in before if "__pycache__" not in each.parts
    ]
