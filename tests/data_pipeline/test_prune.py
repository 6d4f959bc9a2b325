"""Prune drops the versions that nobody needs, and nothing that it did not write."""

import json
import socket
from pathlib import Path

import pytest
from logs import files_of, random_log

from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.prune import main
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import load_manifest, versions_of


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of four versions, the second of which a run reads."""
    for k in range(4):
        random_log(200, seed=k).write_parquet(tmp_path / f"{k}.parquet")
        prepare(DataConfig(log=f"{tmp_path}/{k}.parquet", store=f"{tmp_path}/store", append=True))
    (tmp_path / "run").mkdir()
    pin(tmp_path / "store", "a", tmp_path / "run", 2)
    return tmp_path / "store"


def pin(store: Path, name: str, run_dir: Path, version: int, host: str = socket.gethostname()) -> None:
    (store / "pins").mkdir(exist_ok=True)
    record = {"run_dir": str(run_dir), "version": version, "host": host}
    (store / "pins" / f"{name}.json").write_text(json.dumps(record))


def test_what_runs_read_and_the_newest_are_kept_and_named(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pin(store, "gone", tmp_path / "removed", 1)
    before = files_of(tmp_path)
    assert main([str(store), "--dry-run"]) == 0
    assert files_of(tmp_path) == before
    told = capsys.readouterr().out
    assert f"version 2: kept, run_dir={tmp_path / 'run'} on {socket.gethostname()} reads it" in told
    assert "version 4: kept, the newest" in told
    assert told.count("would be removed") == 2
    kept = {number: load_manifest(str(store), number) for number in (2, 4)}
    assert main([str(store)]) == 0
    assert versions_of(str(store)) == [2, 4]
    assert not (store / "histories").exists()
    for number, manifest in kept.items():
        assert load_manifest(str(store), number) == manifest
        assert HistoryReader(str(store), manifest).read(0, 5).item.size
    names = {name for manifest in kept.values() for name in manifest.files}
    assert names <= files_of(store).keys()
    others = files_of(store).keys() - names
    assert {name.partition("/")[0] for name in others} == {"manifest.json", "versions", "pins"}
    random_log(100, seed=9).write_parquet(tmp_path / "9.parquet")
    prepare(DataConfig(log=f"{tmp_path}/9.parquet", store=str(store), append=True))
    assert versions_of(str(store)) == [2, 4, 5]


def test_a_run_of_another_machine_is_not_taken_for_gone(store: Path, tmp_path: Path):
    pin(store, "far", tmp_path / "nowhere", 1, host="far")
    assert main([str(store)]) == 0
    assert versions_of(str(store)) == [1, 2, 4]


def test_foreign_files_in_the_place_of_a_version_stay(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (store / "items.parquet").write_bytes(b"mine")
    (store / "histories" / "notes.txt").write_bytes(b"mine")
    (store / "versions" / "000003" / "link").symlink_to(tmp_path / "0.parquet")
    assert main([str(store)]) == 0
    assert "left, since they are not as they were written: items.parquet" in capsys.readouterr().out
    assert (store / "items.parquet").read_bytes() == (store / "histories" / "notes.txt").read_bytes() == b"mine"
    assert (store / "versions" / "000003" / "link").is_symlink()
    assert (tmp_path / "0.parquet").is_file()


def test_a_pin_that_cannot_be_read_stops_it(store: Path, capsys: pytest.CaptureFixture[str]):
    (store / "pins" / "b.json").write_text("{")
    before = files_of(store)
    assert main([str(store)]) == 2
    assert "b.json cannot be read" in capsys.readouterr().err
    assert files_of(store) == before
