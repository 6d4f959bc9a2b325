"""The images install what README, the Makefile and docs/gpus.md install: one triple, pinned in one place each."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"-e", ".", ".[dev]"}


def installs(text: str) -> list[set[str]]:
    """What each ``pip install`` of ``text`` names, without options and this project itself."""
    commands = [shlex.split(line, comments=True) for line in re.findall(r"pip install (.*)", text)]
    return [{word for word in words if not word.startswith("--") and word not in OURS} for words in commands]


@pytest.mark.parametrize(
    ("dockerfile", "document"),
    [("Dockerfile", "Makefile"), ("Dockerfile.cuda", "README.md"), ("Dockerfile.cuda", "docs/gpus.md")],
)
def test_an_image_holds_what_is_documented(dockerfile: str, document: str) -> None:
    image = installs((ROOT / dockerfile).read_text())[-1]
    documented = [each for each in installs((ROOT / document).read_text()) if any("torch==" in word for word in each)]
    assert image in documented
    pins = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    assert {word for word in image if word.startswith(("torch==", "torchrec=="))} <= pins


def test_the_cpu_image_takes_the_cpu_build_of_the_same_torch() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"pip install \S+ torch==2\.13\.0 --index-url https://download.pytorch.org/whl/cpu", text)
    assert {word for each in installs(text) for word in each if word.startswith("torch==")} == {"torch==2.13.0"}


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "Dockerfile.cuda"])
def test_an_images_python_is_one_that_is_supported(dockerfile: str) -> None:
    found = re.search(r"FROM python:3\.(\d+)", (ROOT / dockerfile).read_text())
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert found is not None
    oldest = re.search(r">=3\.(\d+)", supported)
    newest = re.search(r"<3\.(\d+)", supported)
    assert oldest is not None
    assert int(oldest[1]) <= int(found[1]) < (int(newest[1]) if newest else 99)
