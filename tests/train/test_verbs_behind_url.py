"""A run in a bucket is used as one in a folder: recommendations from it and to it, and an export of it."""

import json
import shutil
from pathlib import Path

import pytest

from data_pipeline.store.paths import ObjectPath
from object_store import BUCKET, FaultyProxy
from runs import run_here, tiny_run
from train.export.export import main as export
from train.export.preflight import main as export_preflight
from train.recommend.__main__ import main as recommend
from train.recommend.preflight import main as recommend_preflight

URL = f"s3://{BUCKET}/used/run"


@pytest.fixture
def scratch(store: str, tmp_path: Path, proxy: FaultyProxy) -> str:
    """Where a machine that did not train the run works: the run is in the bucket, and its folder here is gone."""
    writer = tmp_path / "writer"
    assert run_here([*tiny_run(store, Path("unused"), 2), f"run_dir={URL}", f"scratch_dir={writer}"]) == 0
    shutil.rmtree(writer)
    return f"scratch_dir={tmp_path / 'reader'}"


@pytest.mark.slow
def test_recommendations_and_an_export_of_a_run_behind_a_url(
    scratch: str, tmp_path: Path, proxy: FaultyProxy, capsys: pytest.CaptureFixture[str]
):
    words = [f"run_dir={URL}", scratch]
    assert recommend([*words, f"recommend.output={tmp_path / 'rows.parquet'}"]) == 0
    proxy.every(5, "500", "short", "503")
    assert recommend_preflight(words) == 0
    assert recommend(words) == 0
    rows = (tmp_path / "rows.parquet").read_bytes()
    assert ObjectPath(f"{URL}/recommendations.parquet").read_bytes() == rows
    assert recommend([*words, f"recommend.output=s3://{BUCKET}/used/rows.csv"]) == 0
    assert ObjectPath(f"s3://{BUCKET}/used/rows.csv").read_text().startswith("user_id,rank,item_id,score,source\n")
    ObjectPath(f"s3://{BUCKET}/used/users.csv").write_bytes(b"user_id\n1\n2\n")
    users = f"recommend.users=s3://{BUCKET}/used/users.csv"
    assert recommend([*words, users, f"recommend.output={tmp_path / 'some.csv'}"]) == 0
    assert len((tmp_path / "some.csv").read_text().splitlines()) == 21
    assert proxy.done
    assert not [each.url for each in ObjectPath(f"s3://{BUCKET}/used").files_below() if "unfinished" in each.url]
    capsys.readouterr()
    assert export_preflight(words) == 2
    assert "name a local folder for the export, export.output=FOLDER" in capsys.readouterr().err
    assert export_preflight([*words, f"export.output=s3://{BUCKET}/used/export"]) == 2
    assert "is a URL; name a local folder" in capsys.readouterr().err
    folder = tmp_path / "export"
    assert export([*words, f"export.output={folder}"]) == 0
    quality = json.loads((folder / "model.json").read_text())["quality"]
    summary = json.loads(ObjectPath(f"{URL}/summary.json").read_text())
    assert quality["run"] == summary["quality"]["test"]
