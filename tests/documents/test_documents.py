"""Every command block of README and the documents runs as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
COMMANDS = Path(__file__).with_name("commands.py")
PROGRAMS = (
    *(
        "shardrec",
        "torchrun",
        "make",
        "pip",
        "salloc",
        "srun",
        "sbatch",
        "scancel",
        "squeue",
        "spark-submit",
        "kubectl",
    ),
    *("docker", "apt-get", "git", "sudo", "pre-commit"),
)
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


FILE = re.compile(r"(?:# @.*\n)?# ([\w./-]+\.yaml)\b")
"""How a file that a page shows begins."""


class Block(NamedTuple):
    """A block of commands of a page."""

    line: int
    language: str
    text: str


def all_blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(text[: match.start()].count("\n") + 1, match[1], match[2]) for match in FENCE.finditer(text)]


def blocks_of(page: Path) -> list[Block]:
    return [block for block in all_blocks_of(page) if block.language in ("sh", "bash", "python")]


def write_files_of(page: Path, folder: Path) -> None:
    """The files that a page shows and its commands then use."""
    for block in all_blocks_of(page):
        if block.language == "yaml" and (named := FILE.match(block.text)):
            file = folder / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A folder with the programs that pages call, and a virtual environment of a page's own making."""
    programs, folder = tmp_path / "programs", tmp_path / "work"
    for place in (programs, folder / ".venv" / "bin"):
        place.mkdir(parents=True)
        for name in (*PROGRAMS, "python", "python3"):
            script = place / name
            inner = "-m venv" if name.startswith("python") else ""
            run = f'SHARDREC_PROGRAM={name} exec {sys.executable} "{COMMANDS}" "$@"'
            body = f'case "$*" in "{inner}"*) exit 0;; esac\nexec {sys.executable} "$@"' if inner else run
            script.write_text(f"#!/bin/bash\n{body}\n")
            script.chmod(0o755)
    (folder / ".venv" / "bin" / "activate").touch()
    ci = folder / ".ci" / "run"
    ci.parent.mkdir()
    ci.write_text("#!/bin/bash\nexit 0\n")  # it runs these tests
    ci.chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.stem)
def test_every_command_block_of_a_page_runs(page: Path, sandbox: Path) -> None:
    environment = os.environ | {
        "PATH": f"{sandbox.parent / 'programs'}:{os.defpath}",
        "PYTHONPATH": str(ROOT),
        "SHARDREC_ROOT": str(ROOT),
        "SHARDREC_SANDBOX": str(sandbox),
        "SCRATCH": str(sandbox / "scratch"),
    }
    write_files_of(page, sandbox)
    for block in blocks_of(page):
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        if block.language == "python":
            command = [sys.executable, "-c", block.text]
        done = subprocess.run(
            command, cwd=sandbox, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )
        assert done.returncode == 0, (
            f"{page.name}:{block.line}\n{block.text}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        )
