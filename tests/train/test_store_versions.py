"""A run reads the version of the store that it began with, and never another numbering of the same events."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from logs import files_of, random_log

from configs.load import load_config
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.store.manifest import identity_digests, load_manifest, versions_of
from ranks import run_ranks
from runs import run_here
from train.evaluate import main as evaluate
from train.preflight import main as preflight
from train.run_dir.identity import open_run_folder
from train.run_dir.store_version import at_version, manifest_of_run

SMALL = ["model.embedding_dim=8", "model.num_blocks=1", "model.num_heads=1", "hardware.num_ranks=1", "num_epochs=2"]


def days(folder: Path, num: int = 2, rows: int = 600) -> list[str]:
    """The log in ``num`` files, of which the later ones reverse how often the items of the first are seen."""
    log = random_log(rows, seed=3)
    paths = [str(folder / f"day-{k}.parquet") for k in range(num)]
    for k, path in enumerate(paths):
        part = log[k * rows // num : (k + 1) * rows // num]
        part.filter(pl.col("item_id") % num != k).write_parquet(path)
    return paths


def run_of(folder: Path, store: Path, *more: str) -> list[str]:
    return [*SMALL, f"data.store={store}", f"run_dir={folder / 'run'}", *more]


def begin(overrides: list[str]) -> None:
    """Leave the folder of a run as it is before the first step."""
    config = load_config(overrides)
    manifest = manifest_of_run(config, Path(config.run_dir))
    open_run_folder(at_version(config, manifest.version), overrides, identity_digests(manifest))


@pytest.fixture
def two_stores(tmp_path: Path) -> tuple[Path, Path]:
    """The same events, once appended and once prepared at once."""
    paths = days(tmp_path)
    for path in paths:
        prepare(DataConfig(log=path, store=str(tmp_path / "grown"), append=True))
    prepare(DataConfig(log=str(tmp_path / "day-*.parquet"), store=str(tmp_path / "whole")))
    return tmp_path / "grown", tmp_path / "whole"


def test_the_same_events_under_other_dense_ids_are_another_store(two_stores: tuple[Path, Path]):
    grown, whole = (load_manifest(str(store)) for store in two_stores)
    assert grown.fingerprint == whole.fingerprint
    assert grown.user_ids == whole.user_ids
    assert grown.item_ids != whole.item_ids


@pytest.mark.parametrize("is_grown_first", [False, True])
def test_the_same_events_under_other_dense_ids_are_refused_in_training_and_matched_in_evaluation(
    tmp_path: Path, two_stores: tuple[Path, Path], is_grown_first: bool, capsys: pytest.CaptureFixture[str]
):
    first, other = two_stores if is_grown_first else two_stores[::-1]
    assert run_ranks(1, run_here, run_of(tmp_path, first)) == [0]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["data"]["item_ids"] == load_manifest(str(first)).item_ids
    before = files_of(tmp_path / "run")
    assert preflight(run_of(tmp_path, other)) == 2
    error = capsys.readouterr().err
    assert f"data.store={other}" in error
    assert "numbers their items otherwise" in error
    assert error.count("\n") == 1
    assert files_of(tmp_path / "run") == before
    assert evaluate([f"run_dir={tmp_path / 'run'}", f"data.store={other}"]) == 0
    assert "matched by raw id" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["test"] == summary["quality"]["test"], "the same events, whatever their dense ids"
    assert found["data"]["item_ids"] == load_manifest(str(other)).item_ids


def test_a_run_goes_on_with_the_version_that_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second = days(tmp_path)
    store = tmp_path / "store"
    expected = prepare(DataConfig(log=first, store=str(store)))
    (untouched := tmp_path / "untouched").mkdir()
    shutil.copytree(store, untouched / "store")
    (tmp_path / "a").mkdir()
    overrides = run_of(tmp_path / "a", store)
    begin(overrides)
    prepare(DataConfig(log=second, store=str(store), append=True))
    capsys.readouterr()
    assert preflight(overrides) == 0
    assert "has version 2; this run reads version 1 to its end" in capsys.readouterr().out
    run_ranks(1, run_here, overrides)
    run_ranks(1, run_here, run_of(untouched, untouched / "store"))
    summaries = [json.loads((place / "run" / "summary.json").read_text()) for place in (tmp_path / "a", untouched)]
    assert summaries[0]["quality"] == summaries[1]["quality"]
    assert summaries[0]["data"] == summaries[1]["data"]
    assert summaries[0]["data"]["fingerprint"] == expected.fingerprint
    assert evaluate([f"run_dir={tmp_path / 'a' / 'run'}"]) == 0
    quality = json.loads((tmp_path / "a" / "run" / "evaluation.json").read_text())
    assert quality["test"] == summaries[0]["quality"]["test"]


def test_an_older_version_is_read_by_its_number_and_an_unknown_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = tmp_path / "store"
    made = [prepare(DataConfig(log=path, store=str(store), append=True)) for path in days(tmp_path, 3)]
    assert versions_of(str(store)) == [1, 2, 3]
    assert [load_manifest(str(store), number) for number in (1, 2, 3, 0)] == [*made, made[-1]]
    begin(run_of(tmp_path, store, "data.version=2"))
    assert json.loads((tmp_path / "run" / "identity.json").read_text())["data.fingerprint"] == made[1].fingerprint
    assert preflight(run_of(tmp_path, store, "data.version=3")) == 2
    assert "holds other data than run_dir=" in capsys.readouterr().err
    assert preflight(run_of(tmp_path / "other", store, "data.version=4")) == 2
    assert "data.version=4: data.store=" in (error := capsys.readouterr().err)
    assert "has the versions 1, 2, 3" in error


def test_a_log_that_grew_is_named_with_what_adds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (log := tmp_path / "log").mkdir()
    first, _ = days(log)
    second = log / "day-1.parquet"
    second.rename(tmp_path / "later.parquet")
    store = tmp_path / "store"
    prepare(DataConfig(log=str(log), store=str(store)))
    overrides = run_of(tmp_path, store, f"data.log={log}")
    assert preflight(overrides) == 0
    assert "note" not in capsys.readouterr().out
    shutil.copy(first, log / "again.parquet")
    (tmp_path / "later.parquet").rename(second)
    assert preflight(overrides) == 0
    told = capsys.readouterr().out
    assert f"1 file that data.store={store} has not seen ({second})" in told
    command = f"shardrec prepare data.append=true data.log={log} data.store={store}"
    assert f"`{command}`" in told
    prepare(load_config(command.split()[2:]).data)
    assert preflight(overrides) == 0
    assert "has not seen" not in capsys.readouterr().out


def test_a_log_that_grew_beside_a_k_core_is_named_with_a_command_that_can_add_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (log := tmp_path / "log").mkdir()
    days(log)
    second = log / "day-1.parquet"
    second.rename(tmp_path / "later.parquet")
    store = tmp_path / "store"
    prepare(DataConfig(log=str(log), store=str(store), min_item_events=2))
    (tmp_path / "later.parquet").rename(second)
    assert preflight(run_of(tmp_path, store, f"data.log={log}")) == 0
    command = f"shardrec prepare data.min_item_events=2 data.log={log} data.store={store}"
    assert f"`{command}`" in capsys.readouterr().out
    assert prepare(load_config(command.split()[2:]).data).version == 2


@pytest.mark.parametrize(
    ("run_dir", "store", "log", "keys"),
    [
        ("store/runs/a", "store", "", ("run_dir", "data.store")),
        ("run", "run/store", "", ("data.store", "run_dir")),
        ("store", "store", "", ("run_dir",)),
        ("log/run", "store", "log", ("run_dir", "data.log")),
        ("run", "store", "run/log", ("data.log", "run_dir")),
        ("link/run", "store", "", ("run_dir", "data.store")),
    ],
)
def test_a_run_a_store_and_a_log_do_not_lie_in_one_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run_dir: str, store: str, log: str, keys: tuple[str, str]
):
    (tmp_path / "days").mkdir()
    prepare(DataConfig(log=days(tmp_path / "days")[0], store=str(tmp_path / store)))
    (tmp_path / "link").symlink_to(tmp_path / "store")
    before = files_of(tmp_path)
    places = [f"data.store={tmp_path / store}", f"run_dir={tmp_path / run_dir}", f"data.log={log and tmp_path / log}"]
    assert preflight([*SMALL, *places]) == 2
    error = capsys.readouterr().err
    assert all(f"{key}=" in error for key in keys)
    assert files_of(tmp_path) == before
