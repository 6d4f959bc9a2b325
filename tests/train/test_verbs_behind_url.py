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
    folder = tmp_path / "export"
    assert export([*words, f"export.output={folder}"]) == 0
    quality = json.loads((folder / "model.json").read_text())["quality"]
    summary = json.loads(ObjectPath(f"{URL}/summary.json").read_text())
    assert quality["run"] == summary["quality"]["test"]


def objects_below(url: str) -> dict[str, bytes]:
    return {place.url.removeprefix(f"{url}/"): place.read_bytes() for place in ObjectPath(url).files_below()}


class Killed(BaseException):
    """What ends the command wherever it is."""


@pytest.mark.slow
def test_an_export_behind_a_url_is_that_of_a_folder_or_is_not_there(
    scratch: str,
    tmp_path: Path,
    proxy: FaultyProxy,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    words, url = [f"run_dir={URL}", scratch], f"{URL}/export"
    folder = tmp_path / "export"
    assert export([*words, f"export.output={folder}"]) == 0
    here = {path.name: path.read_bytes() for path in folder.iterdir()}
    proxy.every(5, "500", "short", "503")
    assert export_preflight(words) == 0
    assert export(words) == 0, "by default below the run"
    proxy.fault = lambda method, path: ""
    assert objects_below(url).keys() == here.keys()
    assert same_but_for_the_program(objects_below(url), here)
    assert [path.name for path in (tmp_path / "reader").iterdir() if path.name.startswith("export-")] == []
    assert recommend([*words, f"recommend.output={tmp_path / 'rows.parquet'}"]) == 0, "the run is as it was"

    real, sent = ObjectPath.send, list[str]()

    def killing(self: ObjectPath, source: Path) -> None:
        if len(sent) == 3:
            raise Killed
        sent.append(self.name)
        real(self, source)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectPath, "send", killing)
        with pytest.raises(Killed):
            export([*words, "export.examples=3"])
    assert "model.json" not in objects_below(url), "half of an export is none"
    assert export([*words, "export.examples=3"]) == 0
    assert len(json.loads(objects_below(url)["example.json"])["examples"]) == 3
    assert objects_below(url).keys() == here.keys()

    for name, content in (("notes.txt", b"mine"), ("README.md", b"changed")):
        before = objects_below(url)
        ObjectPath(f"{url}/{name}").write_bytes(content)
        capsys.readouterr()
        assert export_preflight(words) == 2
        assert f"export.output={url} holds {name!r}" in capsys.readouterr().err
        assert objects_below(url) == before | {name: content}
        ObjectPath(f"{url}/{name}").unlink()
        if name in before:
            ObjectPath(f"{url}/{name}").write_bytes(before[name])
    other = bytes(reversed(objects_below(url)["items.jsonl"]))
    ObjectPath(f"{url}/items.jsonl").write_bytes(other)
    assert export(words) == 2
    assert f"export.output={url} holds 'items.jsonl'" in capsys.readouterr().err
    assert objects_below(url)["items.jsonl"] == other


def same_but_for_the_program(ours: dict[str, bytes], others: dict[str, bytes]) -> bool:
    """The archive of a program has times in it, and ``model.json`` its sum."""
    own = {"encoder.pt2", "model.json"}
    return all(ours[name] == others[name] for name in others.keys() - own)
