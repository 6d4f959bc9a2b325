"""Checks of Python and the installed packages: what fails each, and the line that mends it."""

import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.doctor import software
from launch.doctor.row import Mark, Row

ROOT = Path(__file__).resolve().parents[2]
MATCHING = {"torch": "2.13.0+cpu", "fbgemm-gpu": "1.8.0+cpu", "fbgemm-gpu-cpu": "1.8.0", "torchrec": "1.8.0"}
ON_GPU = {"torch": "2.13.0", "fbgemm-gpu": "1.8.0", "fbgemm-gpu-cpu": "", "torchrec": "1.8.0"}


def assert_failed(row: Row, told: str, fix: str) -> None:
    assert row.mark is Mark.FAIL, row
    assert told in row.found
    assert fix in row.fix


def install(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], cuda: str = "") -> None:
    monkeypatch.setattr(software, "installed_version", lambda name: versions.get(name, ""))
    monkeypatch.setattr(software, "torch_cuda", lambda: cuda)


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "sys", SimpleNamespace(version_info=(3, 10, 4), executable="/usr/bin/python3"))
    assert_failed(software.check_python(), "3.10.4", "make setup PYTHON=python3.11")


def test_a_python_that_was_not_tried_is_doubtful_and_the_bounds_are_those_of_the_metadata(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    (oldest, newest) = (".".join(map(str, each)) for each in (software.OLDEST_PYTHON, software.NEWEST_PYTHON))
    major, minor = software.NEWEST_PYTHON
    assert supported == f">={oldest},<{major}.{minor + 1}"
    monkeypatch.setattr(
        software, "sys", SimpleNamespace(version_info=(major, minor + 1, 0), executable="/usr/bin/python3")
    )
    row = software.check_python()
    assert row.mark is Mark.WARN
    assert f"make setup PYTHON=python{newest}" in row.fix


def test_the_triple_that_is_told_is_the_one_that_is_installed() -> None:
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    shim = tomllib.loads((ROOT / "tools" / "fbgemm_shim" / "pyproject.toml").read_text())["project"]
    torch, fbgemm, torchrec = software.PINNED
    assert {f"torch=={torch}", f"torchrec=={torchrec}"} <= set(pins)
    assert shim["dependencies"] == [f"fbgemm-gpu-cpu=={fbgemm}"]
    oldest, below = (".".join(map(str, bound)) for bound in software.HYDRA)
    assert f"hydra-core>={oldest},<{below}" in pins
    assert {pin.split("=")[0].split(">")[0] for pin in pins} == {"torch", "torchrec", *software.OTHERS}


@pytest.mark.parametrize(("versions", "device", "cuda"), [(MATCHING, "cpu", ""), (ON_GPU, "cuda", "13.0")])
def test_a_matching_triple_passes(
    versions: dict[str, str], device: str, cuda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, versions, cuda)
    assert software.check_triple(device).mark is Mark.OK


def test_a_triple_that_matches_and_is_not_ours_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, {"torch": "2.14.0", "fbgemm-gpu": "1.9.0", "torchrec": "1.9.3"}, "13.0")
    row = software.check_triple("cuda")
    assert row.mark is Mark.WARN
    assert "torch==2.13.0" in row.fix


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"torch": ""}, "not installed: torch"),
        ({"fbgemm-gpu": "", "fbgemm-gpu-cpu": ""}, "not installed: fbgemm-gpu-cpu"),
        ({"torchrec": ""}, "not installed: torchrec"),
        ({"torch": "2.12.1+cpu"}, "this torch needs fbgemm 1.7.0, torchrec 1.7.0"),
        ({"fbgemm-gpu-cpu": "1.7.0"}, "this torch needs fbgemm 1.8.0"),
        ({"torchrec": "1.8.1"}, "do not match"),
        ({"torch": "2.9.0"}, "no fbgemm is known"),
        ({"fbgemm-gpu": "1.9.0"}, "written over each other"),
    ],
)
def test_a_triple_that_does_not_match_fails(
    changed: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, MATCHING | changed)
    install_line = f"install torch==2.13.0 {ROOT / 'tools' / 'fbgemm_shim'} torchrec==1.8.0"
    assert_failed(software.check_triple("cpu"), told, install_line)


@pytest.mark.parametrize(("versions", "cuda"), [(MATCHING, "13.0"), (MATCHING, ""), (ON_GPU, "")])
def test_a_cpu_build_fails_where_gpus_are_wanted(
    versions: dict[str, str], cuda: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, versions, cuda)
    row = software.check_triple("cuda")
    assert_failed(row, "is a CPU build", "install torch==2.13.0 fbgemm-gpu==1.8.0 torchrec==1.8.0")
    assert f"{'fbgemm' if cuda else 'torch'} is a CPU build" in row.found


@pytest.mark.parametrize(("line", "cuda"), [("cuda: Optional[str] = None", ""), ("cuda: str = '12.8'", "12.8")])
def test_the_build_of_torch_is_read_without_importing_it(
    line: str, cuda: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('it was imported')")
    (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\nhip = None\n")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert software.torch_cuda() == cuda


@pytest.mark.parametrize(
    ("changed", "told", "fix"),
    [
        ({"polars": "", "pyarrow": ""}, "pyarrow, polars not installed", "install pyarrow polars"),
        ({"hydra-core": "1.3.2"}, "hydra-core 1.3.2", "install 'hydra-core>=1.3.6,<1.5'"),
        ({"hydra-core": "1.5.0"}, "hydra-core 1.5.0", "install 'hydra-core>=1.3.6,<1.5'"),
    ],
)
def test_another_package_that_is_missing_or_unsafe_fails(
    changed: dict[str, str], told: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = dict.fromkeys(software.OTHERS, "9") | {"hydra-core": "1.3.8"}
    install(monkeypatch, versions)
    assert software.check_others().mark is Mark.OK
    install(monkeypatch, versions | changed)
    assert_failed(software.check_others(), told, fix)
