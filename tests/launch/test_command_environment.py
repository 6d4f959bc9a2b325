"""What a person's environment may hold when a command starts its modules."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from launch.command import run_module

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("threads", ["0", "-1", "abc", ""])
def test_a_number_of_polars_threads_that_is_none_is_refused_before_anything_is_read(
    threads: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLARS_MAX_THREADS", threads)
    with pytest.raises(ConfigError, match=rf"POLARS_MAX_THREADS={threads} must be a whole number"):
        run_module("data_pipeline.prepare", [])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("words", "code"), [(["config"], 0), (["prepare", "data.log=no/such.csv"], 2)])
def test_a_command_ends_with_its_exit_code_though_python_is_to_stay_for_an_inspection(
    words: list[str], code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "launch", *words, f"data.store={tmp_path}/store"]
    environment = os.environ | {"PYTHONINSPECT": "1", "PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


def shown(words: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """A command as a shell starts it; ``options`` of ``subprocess.run``."""
    command = [sys.executable, "-m", "launch", *words]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False, **options)


@pytest.mark.parametrize("words", [["config"], ["train", "experiment=smoke"], ["inspect", "store"]])
def test_a_current_folder_that_was_deleted_is_said_in_one_line(words: list[str], tmp_path: Path) -> None:
    done = shown(words, cwd=tmp_path, preexec_fn=tmp_path.rmdir)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the current folder was deleted" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: only Linux has it")
@pytest.mark.parametrize("words", [["config"], ["config", "--reference"], ["completion", "bash"]])
def test_what_a_full_disk_does_not_take_is_no_success(words: list[str]) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = shown(words, stdout=full)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "stdout did not take all that was printed" in done.stderr
