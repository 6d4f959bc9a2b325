"""What an encoder cannot do is refused by its key before ranks start."""

from pathlib import Path

import pytest

from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from prepared_store import synthetic_store
from runs import run_here, tiny_run
from train.export.preflight import main as export
from train.preflight import main as train
from train.recommend.preflight import main as recommend


def keys_without_heads(store: str, folder: Path) -> list[str]:
    return [each for each in tiny_run(store, folder, 2) if not each.startswith("model.num_")]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("request")
    keys = keys_without_heads(synthetic_store(folder), folder / "run")
    assert run_here([*keys, "model=hstu", "model.time=request"]) == 0
    return folder / "run"


def line_of(capsys: pytest.CaptureFixture[str]) -> str:
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_a_model_that_reads_times_is_not_exported(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export([f"run_dir={run_dir}"]) == 2
    assert "model.time=request: an exported program is not given the times of the events" in line_of(capsys)
    assert not (run_dir / "export").exists()


def test_lists_that_are_asked_for_at_no_known_time_are_refused(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recommend([f"run_dir={run_dir}"]) == 2
    assert "was trained with model.time=request" in line_of(capsys)
    assert recommend([f"run_dir={run_dir}", "recommend.what=similar_items"]) == 0


def test_another_model_does_not_begin_with_it(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = keys_without_heads(str(run_dir.parent / "store"), tmp_path / "run")
    for choices, key in ((["model=gru4rec"], "model=gru4rec"), (["model=hstu"], "model.time=event")):
        assert train([*keys, *choices, f"init_from={run_dir}"]) == 2
        assert key in line_of(capsys)


def test_times_are_not_read_of_a_log_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\n" + "".join(f"{n % 9},{n % 7}\n" for n in range(90)))
    data = DataConfig(log=str(tmp_path / "log.csv"), store=str(tmp_path / "store"))
    data.columns.timestamp = ""
    prepare(data)
    keys = [*keys_without_heads(data.store, tmp_path / "run"), "model=hstu", "data.columns.timestamp="]
    assert train(keys) == 2
    assert "set model.time=none" in line_of(capsys)
    assert train([*keys, "model.time=none"]) == 0
