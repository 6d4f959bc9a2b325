"""Logs behind ``s3://`` and stores sent there: the store of the local log, or none; never a half one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from logs import newest_of

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.prepare.local_engine import PreparedStore, run_stages
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.read.sources import find_log_files
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest, item_counts, load_manifest
from data_pipeline.store.paths import ObjectPath
from data_pipeline.synthetic import write_log
from object_store import BUCKET, FaultyProxy


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A place of its own for every test."""
    return f"s3://{BUCKET}/{request.node.name}".replace("[", "-").replace("]", "")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder of three Parquet, CSV and JSON-lines files of one log, with a few broken rows."""
    write_log(SyntheticConfig(num_users=60, num_items=40, dirty_fraction=0.03), str(tmp_path / "whole.parquet"))
    rows, folder = pl.read_parquet(tmp_path / "whole.parquet"), tmp_path / "log"
    third = len(rows) // 3
    (folder / "day=1").mkdir(parents=True)
    rows[:third].write_parquet(folder / "day=1" / "a.parquet")
    rows[third : 2 * third].write_parquet(folder / "day-2.parquet")
    rows[2 * third :].write_parquet(folder / "z.parquet")
    (folder / "_SUCCESS").touch()
    return folder


@pytest.fixture
def text_log(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    rows = pl.DataFrame({"user_id": [1, 2, 1, 2], "item_id": [5, 6, 6, 5], "timestamp": [10, 20, 30, 40]})
    rows[:2].write_csv(folder / "a.csv")
    rows[2:].write_ndjson(folder / "b.jsonl")
    return folder


def put(folder: Path, url: str) -> str:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            ObjectPath(f"{url}/{path.relative_to(folder).as_posix()}").send(path)
    return url


def content(manifest: Manifest) -> dict[str, object]:
    return {name: getattr(manifest, name) for name in ("fingerprint", "rows_read", "rows_quarantined", "num_items")}


def config_of(log: object, store: object, **more: object) -> DataConfig:
    return replace(DataConfig(log=str(log), store=str(store), max_bad_fraction=0.5), **more)


def test_a_log_behind_a_url_makes_the_store_of_the_local_log(
    proxy: FaultyProxy, log: Path, url: str, tmp_path: Path
) -> None:
    expected = content(prepare(config_of(log, tmp_path / "here")))
    assert expected["rows_quarantined"], "some rows are broken"
    put(log, url)
    proxy.every(5, "500", "cut", "short")
    for name in ("", "/", "/**/*.parquet"):
        store = tmp_path / "there"
        assert content(prepare(config_of(f"{url}{name}", store, deduplicate=False))) == expected
    assert set(proxy.done) == {"500", "cut", "short"}
    kept = pl.read_parquet(store / "quarantine" / "*.parquet")
    assert set(kept["log_file"]) <= {str(place) for place in find_log_files(url)}


def test_text_behind_a_url_is_read_from_copies_that_go(
    proxy: FaultyProxy, text_log: Path, url: str, tmp_path: Path
) -> None:
    expected = content(prepare(config_of(text_log, tmp_path / "here")))
    put(text_log, url)
    assert content(prepare(config_of(url, tmp_path / "there"))) == expected
    assert {path.name for path in tmp_path.iterdir()} == {"text", "here", "there"}
    ObjectPath(f"{url}/c.csv").write_bytes(b"user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match=f"{url}/c.csv has no column 'timestamp'"):
        prepare(config_of(url, tmp_path / "third"))
    assert not (tmp_path / "third").exists()


def test_globs_and_folders_of_objects_name_the_files_that_local_ones_do(
    proxy: FaultyProxy, log: Path, url: str
) -> None:
    put(log, url)
    for pattern in ("", "/*.parquet", "/**/*.parquet", "/day*", "/day=1/a.parquet", "/[a-z].parquet", "/day=?"):
        here = [path.relative_to(log).as_posix() for path in find_log_files(f"{log}{pattern}")]
        there = [str(place).removeprefix(f"{url}/") for place in find_log_files(f"{url}{pattern}")]
        assert there == here, pattern
    with pytest.raises(DataError, match="names no file"):
        find_log_files(f"{url}/*.csv")


def test_an_object_that_is_replaced_while_it_is_read_ends_prepare(
    proxy: FaultyProxy, log: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(log, url)

    def written_over(*arguments: Any) -> PreparedStore:
        made = run_stages(*arguments)
        ObjectPath(f"{url}/z.parquet").send(log / "day-2.parquet")
        return made

    monkeypatch.setattr("data_pipeline.prepare.prepare.run_stages", written_over)
    with pytest.raises(DataError, match=f"{url}/z.parquet was changed while it was read"):
        prepare(config_of(url, tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_store_sent_to_a_url_is_the_local_store(proxy: FaultyProxy, log: Path, url: str, tmp_path: Path) -> None:
    expected = prepare(config_of(log, tmp_path / "here"))
    proxy.every(6, "500", "503", "slow")
    config = config_of(log, f"{url}/store/", spill_dir=str(tmp_path / "spill"))
    assert prepare(config) == load_manifest(config.store) == expected
    assert not any((tmp_path / "spill").iterdir())
    assert item_counts(config.store, expected).tolist() == item_counts(str(tmp_path / "here"), expected).tolist()
    one, other = (HistoryReader(store, expected).read(0, 60) for store in (config.store, str(tmp_path / "here")))
    assert one.item.tolist() == other.item.tolist()
    assert one.timestamp.tolist() == other.timestamp.tolist()
    assert prepare(config) == expected, "a store that is there from the same log is kept"


def test_an_interrupted_sending_leaves_no_manifest_and_the_same_command_ends_it(
    proxy: FaultyProxy, log: Path, url: str, tmp_path: Path
) -> None:
    config = config_of(log, f"{url}/store", spill_dir=str(tmp_path / "spill"))
    ObjectPath(f"{url}/store/sending.json").write_bytes(b"{}")
    ObjectPath(f"{url}/store/histories/part-00009.parquet").write_bytes(b"left by an upload of another log")
    proxy.fault = lambda method, path: "500" if method in ("PUT", "POST") and "items" in path else ""
    with pytest.raises(DataError, match=rf"{url}/store/items.parquet: \d+ tries"):
        prepare(config)
    with pytest.raises(DataError, match="is not a store"):
        load_manifest(config.store)
    proxy.fault = lambda method, path: ""
    manifest = prepare(config)
    assert HistoryReader(config.store, manifest).read(0, 1).item.size
    assert content(manifest) == content(prepare(config_of(log, tmp_path / "here")))
    names = {place.url.removeprefix(f"{url}/store/") for place in ObjectPath(config.store).files_below()}
    assert names == {*manifest.files, "manifest.json", "versions/000001/manifest.json"}


def test_somebody_elses_objects_at_the_url_are_refused_untouched(
    proxy: FaultyProxy, log: Path, url: str, tmp_path: Path
) -> None:
    config = config_of(log, f"{url}/store", spill_dir=str(tmp_path / "spill"))
    ObjectPath(f"{url}/mine/photo.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"holds photo\.jpg and is no store"):
        prepare(replace(config, store=f"{url}/mine"))
    with pytest.raises(ConfigError, match=r"data\.spill_dir"):
        prepare(replace(config, store=f"{url}/new", spill_dir=""))


def test_an_append_behind_a_url_is_a_version_beside_the_others(
    proxy: FaultyProxy, log: Path, url: str, tmp_path: Path
) -> None:
    (tmp_path / "days").mkdir()
    shutil.copy(log / "day-2.parquet", tmp_path / "days")
    config = config_of(tmp_path / "days", f"{url}/store", spill_dir=str(tmp_path / "spill"))
    first = prepare(config)
    before = {place.url: place.read_bytes() for place in ObjectPath(config.store).files_below()}
    del before[f"{config.store}/manifest.json"]
    shutil.copy(log / "z.parquet", tmp_path / "days")
    mine = ObjectPath(f"{config.store}/mine.txt")
    mine.write_bytes(b"mine")
    proxy.fault = lambda method, path: "500" if method in ("PUT", "POST") and "items" in path else ""
    with pytest.raises(DataError, match=r"items.parquet: \d+ tries"):
        prepare(replace(config, append=True))
    proxy.fault = lambda method, path: ""
    assert load_manifest(config.store) == first
    grown = prepare(replace(config, append=True))
    assert content(grown) == content(prepare(config_of(tmp_path / "days", tmp_path / "here")))
    after = {place.url: place.read_bytes() for place in ObjectPath(config.store).files_below()}
    assert before.items() <= after.items()
    assert after[mine.url] == b"mine"
    for version, manifest in ((1, first), (2, grown), (0, grown)):
        assert load_manifest(config.store, version) == manifest
        assert HistoryReader(config.store, load_manifest(config.store, version)).read(0, 5).item.size
    assert prepare(replace(config, append=True)) == grown


def test_new_objects_are_appended_to_a_local_store_once(
    proxy: FaultyProxy, log: Path, url: str, tmp_path: Path
) -> None:
    whole = content(prepare(config_of(log, tmp_path / "here")))
    place = ObjectPath(f"{url}/day-2.parquet")
    place.send(log / "day-2.parquet")
    store = tmp_path / "store"
    prepare(config_of(url, store))
    put(log, url)
    added = prepare(config_of(url, store, append=True))
    assert added.rows_read == whole["rows_read"], "the object that was added before is not added again"
    assert len(json.loads((newest_of(store) / "prepared_from.json").read_text())["digests"]) == 3
    assert prepare(config_of(url, store, append=True)) == added
