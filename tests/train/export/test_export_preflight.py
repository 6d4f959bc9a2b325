"""What cannot be exported is refused with one line before anything starts."""

import shutil
from pathlib import Path

import pytest

from train.export import preflight


def refusal(capsys: pytest.CaptureFixture[str], overrides: list[str]) -> str:
    assert preflight.main(overrides) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no run" in refusal(capsys, [f"run_dir={tmp_path}"])


def test_a_run_without_a_best_model_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("best", "export"))
    assert "has no final or best model yet" in refusal(capsys, [f"run_dir={copy}"])
    assert not (copy / "export").exists()


@pytest.mark.parametrize("extra", ["onnx", "faiss", "mlflow"])
def test_an_extra_that_is_not_installed_is_named_with_its_command(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], extra: str
) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    assert f"pip install 'shardrec[{extra}]'" in refusal(capsys, [f"run_dir={run}", f"export.{extra}=true"])


def test_a_missing_compiler_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preflight.shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in refusal(capsys, [f"run_dir={run}", "export.aot_inductor=true"])


def test_another_model_than_the_runs_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "model.num_blocks" in refusal(capsys, [f"run_dir={run}", "model.num_blocks=5"])


def test_an_unknown_number_format_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "float32, float16, int8" in refusal(capsys, [f"run_dir={run}", "export.dtype=int4"])


def test_a_run_that_can_be_exported_is_let_through(run: Path) -> None:
    assert preflight.main([f"run_dir={run}", "export.dtype=int8"]) == 0
