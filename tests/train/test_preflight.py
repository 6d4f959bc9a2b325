"""What would end a run at once ends the preflight with one line that names it, and starts nothing."""

import json
from pathlib import Path

import pytest

from prepared_store import synthetic_store
from stores import write_store
from train.preflight import main


def test_a_store_and_a_new_folder_pass(tmp_path: Path):
    assert main(_overrides(tmp_path)) == 0
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (["data.store=none"], "none"),
        (["data.store="], "data.store"),
        (["model.num_haeds=2"], "num_haeds"),
        (["model.num_heads=3"], "num_heads=3"),
        (["model.embedding_dim=30"], "embedding_dim=30"),
        (["model.dropout=0.99"], "model.dropout"),
        (["optimizer.beta1=2"], "optimizer.beta1"),
        (["optimizer.weight_decay=-1"], "optimizer.weight_decay"),
        (["data.prefetch_batches=-1"], "data.prefetch_batches"),
        (["data.event_types=[buy]"], "data.columns.event_type"),
        (["hardware.num_ranks=9"], "num_lanes"),
        (["run_dir=FILE/run"], "run_dir"),
    ],
)
def test_a_wrong_choice_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: list[str], told: str):
    (tmp_path / "FILE").write_text("")
    broken = [value.replace("FILE", str(tmp_path / "FILE")) for value in broken]
    assert main([*_overrides(tmp_path), *broken]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_store_of_another_format_version_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    overrides = _overrides(tmp_path)
    path = tmp_path / "store" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))
    assert main(overrides) == 2
    assert "99" in capsys.readouterr().err


def test_the_folder_of_another_run_is_refused_and_left_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    overrides = _overrides(tmp_path)
    assert main(overrides) == 0
    before = (tmp_path / "run" / "config.yaml").read_text()
    assert main([*overrides, "optimizer.lr=0.5"]) == 2
    assert "optimizer.lr=0.001, here 0.5" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert main([*overrides, "hardware.num_ranks=1", "num_epochs=99"]) == 0


def test_a_store_of_another_log_than_the_one_named_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    synthetic_store(tmp_path)
    overrides = _overrides(tmp_path)
    for log in (tmp_path / "log.parquet", tmp_path, tmp_path / "*.parquet"):
        assert main([*overrides, f"data.log={log}"]) == 0
    assert main([*overrides, f"data.log={tmp_path / 'other.parquet'}"]) == 2
    assert "was made from" in capsys.readouterr().err


def _overrides(folder: Path) -> list[str]:
    store = folder / "store"
    if not store.exists():
        write_store(store, [[1, 2, 3]], [[1, 2, 3]])
    return [f"data.store={store}", f"run_dir={folder / 'run'}"]
