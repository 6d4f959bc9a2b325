"""One writer a store, in a folder or behind a URL: the second is told who, the lost one is fenced."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from logs import random_log

from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.prune import main as prune
from data_pipeline.prepare.prune import prune as pruned
from data_pipeline.prepare.store_lease import place_of_lease, writing_store
from data_pipeline.store import lease as leases
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.lease import LeaseError
from data_pipeline.store.lease_records import Writer, records_of
from data_pipeline.store.manifest import load_manifest, versions_of
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of
from object_store import BUCKET

PREPARES = """
import sys, time
from configs.schema import DataConfig
from data_pipeline.prepare import prepare as module
from data_pipeline.prepare.progress import ProgressReporter
class Stopping(ProgressReporter):
    def advance(self, *words):
        print("at work", flush=True)
        time.sleep(1000)
module.prepare(DataConfig(log=sys.argv[1], store=sys.argv[2], spill_dir=sys.argv[3]), Stopping())
"""


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a store may be made; nothing of a lease may be left there."""
    if request.param == "folder":
        yield str(tmp_path / "store")
        assert not (tmp_path / "store.writing").exists()
        return
    request.getfixturevalue("proxy")
    url = f"s3://{BUCKET}/{tmp_path.name}"
    yield url
    left = list(ObjectPath(url).files_below())
    for each in left:
        each.unlink()
    assert not [each for each in left if "/.writer/" in each.url]


@pytest.fixture
def config(store: str, tmp_path: Path) -> DataConfig:
    for k in range(2):
        random_log(60, seed=k).write_parquet(tmp_path / f"{k}.parquet")
    return DataConfig(log=str(tmp_path / "0.parquet"), store=store, spill_dir=str(tmp_path / "spill"))


def at_work(config: DataConfig) -> "subprocess.Popen[str]":
    """A prepare of another process, in the midst of reading."""
    command = [sys.executable, "-c", PREPARES, config.log, config.store, config.spill_dir]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


def records_place(store: str) -> AnyPath:
    place = path_of(store)
    return place_of_lease(place) if isinstance(place, Path) else place


def test_with_another_spill_dir_the_second_is_told_the_first_and_after_its_kill_goes_on(
    config: DataConfig, tmp_path: Path
) -> None:
    with at_work(config) as first:
        try:
            other = replace(config, spill_dir=str(tmp_path / "other"))
            with pytest.raises(LeaseError) as error:
                prepare(other)
            told = str(error.value)
            assert told.startswith(f"data.store={config.store} is being written by process {first.pid} of ")
            assert f" on {os.uname().nodename}, since 20" in told
            assert f"wait until it has ended, end it there (`kill {first.pid}`" in told
            assert "\n" not in told
            assert not (tmp_path / "other").exists()
        finally:
            first.send_signal(signal.SIGKILL)
    assert prepare(config).rows_used == 60
    assert load_manifest(config.store).version == 1


def taken_over(store: str) -> None:
    """As by a prepare of another machine, which has taken this process for dead."""
    records = records_of(records_place(store))
    records.create(records.newest() + 1, Writer(host="elsewhere", kernel="another"), lambda: None)


def clear(store: str) -> None:
    """The other machine's prepare ends."""
    records = records_of(records_place(store))
    records.remove(records.newest())
    place = records_place(store)
    if isinstance(place, Path):
        place.rmdir()


@pytest.mark.parametrize("is_there", [False, True])
def test_who_was_taken_for_dead_publishes_nothing_and_leaves_the_others_files(
    config: DataConfig, is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 1000.0)  # found by the check before a publication, not by a renewal
    if is_there:
        prepare(config)
    config = replace(config, log=str(tmp_path / "1.parquet"))

    class Losing(ProgressReporter):
        is_lost = False

        def advance(self, *words: object) -> None:
            if not self.is_lost:
                taken_over(config.store)
            self.is_lost = True

    with pytest.raises(LeaseError, match=r"was taken over by process .* on elsewhere"):
        prepare(config, Losing())
    assert (path_of(config.store) / "manifest.json").is_file() == is_there
    assert not is_there or versions_of(config.store) == [1]
    assert list((tmp_path / "spill").iterdir()), "what the next writer works in is not cleared"
    clear(config.store)
    assert prepare(config).rows_used == 60


def test_one_that_was_overtaken_while_it_planned_looks_again(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the store and the lease of it another prepare makes the store."""
    module = "prepare" if isinstance(path_of(config.store), Path) else "upload"
    name = f"data_pipeline.prepare.{module}.writing_store"
    made = []

    def overtaken(*words: object) -> object:
        monkeypatch.setattr(name, writing_store)
        made.append(prepare(config))
        return writing_store(*words)

    monkeypatch.setattr(name, overtaken)
    assert [prepare(config)] == made
    assert versions_of(config.store) == [1]


def test_prune_drops_old_versions_alone_and_waits_for_no_reader(
    config: DataConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(config)
    newest = prepare(replace(config, log=str(tmp_path / "1.parquet")))
    assert prune([config.store, "--dry-run"]) == 0
    assert versions_of(config.store) == [1, 2]
    with writing_store(path_of(config.store), "held"):
        assert HistoryReader(config.store, newest).read(0, 1).item.size, "a reader needs no lease"
        assert list(pruned(config.store, is_dry=True))
        capsys.readouterr()
        assert prune([config.store]) == 2
        assert f"store {config.store} is being written by process {os.getpid()}" in capsys.readouterr().err
        assert versions_of(config.store) == [1, 2]
    assert prune([config.store]) == 0
    assert versions_of(config.store) == [2]
    assert HistoryReader(config.store, load_manifest(config.store)).read(0, 5).item.size


def test_an_error_leaves_an_empty_folder_that_was_there_and_no_lease(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\nx,,\n")
    with pytest.raises(ValueError, match="log"):
        prepare(DataConfig(log=str(tmp_path / "log.csv"), store=str(tmp_path / "store")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "store"]
    random_log(60).write_parquet(tmp_path / "log.parquet")
    prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=str(tmp_path / "store")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "log.parquet", "store"]
