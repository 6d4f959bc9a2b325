"""The report of an evaluation whose run folder takes no file."""

import errno
import os
from pathlib import Path

import pytest

from configs.errors import DataError
from train import evaluate


def refuse(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file that is to be synchronised to the disk fail with error ``number``."""

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_run_that_is_for_reading_alone_is_said_to_keep_no_figures(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(number, monkeypatch)
    assert not evaluate._is_kept({"test": 1.0}, tmp_path / "evaluation.json", "mine")
    assert capsys.readouterr().out.startswith("note: run_dir=mine cannot be written")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_an_error_and_leaves_the_last_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "evaluation.json"
    assert evaluate._is_kept({"test": 1.0}, path, "mine")
    before = path.read_bytes()
    refuse(errno.ENOSPC, monkeypatch)
    with pytest.raises(DataError, match=r"run_dir=mine: evaluation\.json does not hold these figures"):
        evaluate._is_kept({"test": 2.0}, path, "mine")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [before]
