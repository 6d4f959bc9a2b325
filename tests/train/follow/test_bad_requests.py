"""What cannot be followed ends with one line that names the key, before a rank is started, and changes nothing."""

from pathlib import Path

import polars as pl
import pytest

from launch import cli
from train.follow.preflight import main as preflight

DAY = 86_400_000


@pytest.fixture
def log(tmp_path: Path) -> str:
    events = {"user_id": [1, 2, 1], "item_id": [1, 1, 2], "timestamp": [10**12, 10**12 + DAY, 10**12 + 9 * DAY]}
    pl.DataFrame(events).write_parquet(tmp_path / "log.parquet")
    return str(tmp_path / "log.parquet")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.log="], "data.log is empty"),
        (["data.log=none.parquet"], "data.log=none.parquet names no file"),
        (["run_dir=s3://bucket/a"], "run_dir=s3://bucket/a: follow keeps a store"),
        (["data.store=store"], "data.store: follow makes its own store"),
        (["data.split=leave_one_out"], "data.split: follow trains on every event"),
        (["init_from=runs/a"], "init_from: the first model starts from scratch"),
        (["train.refit=true"], "train.refit: follow trains on every event"),
        (["data.engine=spark"], "data.engine: follow prepares on this machine"),
        (["data.min_item_events=5"], "data.min_item_events=5: who has that many events"),
        (["data.columns.timestamp="], "data.columns.timestamp is empty"),
        (["data.deduplicate=true", "data.columns.event_type=kind"], "data.deduplicate=true with"),
        (["follow.window=month"], "follow.window=month is unknown"),
        (["follow.update_every=0"], "follow.update_every=0 must be in"),
        (["follow.update_every=often"], "follow.update_every takes whole numbers"),
        (["follow.start=tomorrow"], "follow.start=tomorrow is no date"),
        (["follow.start=2024-01-01", "follow.first_windows=2"], "set one of them"),
        (["follow.first_windows=0"], "follow.first_windows=0 must be at least 1"),
        (["follow.keep_optimizer=true", "follow.warm_start=false"], "follow.keep_optimizer=true needs"),
        (["follow.windows=3"], "did you mean follow.window?"),
    ],
)
def test_a_bad_request_is_one_line(
    words: list[str], told: str, log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert preflight([f"data.log={log}", f"run_dir={tmp_path / 'run'}", *words]) == 2
    line = capsys.readouterr().err
    assert told in line
    assert line.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_folder_of_something_else_is_refused_and_left_as_it_is(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    assert preflight([f"data.log={log}", f"run_dir={folder}"]) == 2
    assert "holds thesis.tex, which follow has not written" in capsys.readouterr().err
    assert [each.name for each in folder.iterdir()] == ["thesis.tex"]
    assert preflight([f"data.log={log}", f"run_dir={log}"]) == 2
    assert "one place" in capsys.readouterr().err
    assert preflight([f"data.log={tmp_path}", f"run_dir={tmp_path / 'inside'}"]) == 2
    assert "is inside data.log" in capsys.readouterr().err


def test_the_verb_checks_before_it_starts_anything(log: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["follow", f"data.log={log}", "follow.window=year"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
