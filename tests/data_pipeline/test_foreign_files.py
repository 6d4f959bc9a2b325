"""Whatever lies in or beside a store and is not prepare's own: no command removes or changes it."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from logs import Interrupting, newest_of, random_log

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare.prune import prune
from data_pipeline.prepare.publish import next_version
from data_pipeline.store.manifest import load_manifest

PLACES = [
    *(
        "store/notes.txt",
        "store/histories/notes.txt",
        "store/histories/part-00009.parquet",
        "store/runs/a/summary.json",
    ),
    *("store/versions/000002", "store/versions/000002/items.parquet", "store/versions/000003/mine", "store/versions"),
    *("store/quarantine/mine.parquet", "store/lengths/mine", "store/pins/mine", "store/newest.json", "store/.hidden"),
    *("store.partial", "store.partial/histories/part-00000.parquet", "store.partial/mine", "store.partial/histories"),
    *(
        "store.spill",
        "store.spill/ranges/mine",
        "store.spill/state.json",
        "store.replaced/mine",
        "store.spill/cuts.block",
    ),
    *("store.writing", "store.writing/mine", "store.writing/.writer/mine"),
    *("beside.txt", "store2/manifest.json"),
]
KINDS = ["file", "folder", "link to a file", "link to a folder", "dangling link"]


def put(path: Path, kind: str, elsewhere: Path) -> bool:
    """Make a foreign entry; whether there was room for it."""
    if os.path.lexists(path) or any(parent.is_file() or parent.is_symlink() for parent in path.parents):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to(elsewhere / "nowhere")
        case _:
            path.symlink_to(elsewhere / ("file" if kind.endswith("file") else "folder"))
    return True


def state_of(path: Path) -> object:
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes() if path.is_file() else path.is_dir()


@example(entries=[("store.partial/histories/part-00000.parquet", "file")], is_store_there=False, moment=0)
@example(entries=[("store.spill", "folder"), ("store.partial/mine", "file")], is_store_there=True, moment=2)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    entries=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(KINDS)), min_size=1, max_size=4),
    is_store_there=st.booleans(),
    moment=st.sampled_from([0, 1, 2]),
)
def test_no_command_removes_or_changes_what_is_foreign(
    entries: list[tuple[str, str]], is_store_there: bool, moment: int
):
    with tempfile.TemporaryDirectory() as name:
        folder, elsewhere = Path(name) / "here", Path(name) / "elsewhere"
        (elsewhere / "folder").mkdir(parents=True)
        for path in (elsewhere / "file", elsewhere / "folder" / "file"):
            path.write_text("mine")
        folder.mkdir()
        for k in range(2):
            random_log(60, seed=k).write_parquet(elsewhere / f"{k}.parquet")
        store = folder / "store"
        configs = [
            DataConfig(log=str(elsewhere / "0.parquet"), store=str(store)),
            DataConfig(log=str(elsewhere / "1.parquet"), store=str(store), append=True),
            DataConfig(log=str(elsewhere / "1.parquet"), store=str(store), deduplicate=True),
        ]
        if is_store_there:
            prepare(configs[0])
        made = [folder / place for place, kind in entries if put(folder / place, kind, elsewhere)]
        before = {path: state_of(path) for path in made}
        told = 0
        for config in configs:
            for progress in [Interrupting(moment)] * bool(moment) + [Interrupting(10**9)]:
                try:
                    prepare(config, progress)
                except (DataError, ConfigError) as error:
                    told += 1
                    assert str(folder) in str(error), error  # noqa: PT017
                except KeyboardInterrupt:
                    pass
        if (store / "manifest.json").is_file():
            with suppress(DataError):  # where the folder that it locks is somebody's
                list(prune(str(store)))
            assert newest_of(store).is_dir()
            assert load_manifest(str(store)).rows_used > 0
        assert {path: state_of(path) for path in made} == before
        assert (elsewhere / "file").read_text() == (elsewhere / "folder" / "file").read_text() == "mine"


def test_a_store_behind_a_link_is_made_where_the_link_leads(tmp_path: Path):
    random_log(60).write_parquet(tmp_path / "log.parquet")
    (tmp_path / "disk").mkdir()
    for name in ("disk/there", "disk/not-yet"):
        link = tmp_path / f"link-{Path(name).name}"
        link.symlink_to(tmp_path / name)
        if name.endswith("there"):
            (tmp_path / name).mkdir()
        prepare(DataConfig(log=str(tmp_path / "log.parquet"), store=str(link)))
        assert link.is_symlink()
        assert (tmp_path / name / "manifest.json").is_file()


@pytest.mark.parametrize(
    ("log", "store", "spill"),
    [("a", "a/store", ""), ("a/store/log", "a/store", ""), ("a/*/*.parquet", "a/store", ""), ("a", "s", "s/spill")],
)
def test_a_log_a_store_and_a_spill_do_not_lie_in_one_another(tmp_path: Path, log: str, store: str, spill: str):
    for name in ("a/log.parquet", "a/store/log/log.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        random_log(60).write_parquet(tmp_path / name)
    spill = spill and str(tmp_path / spill)
    with pytest.raises((ConfigError, DataError), match=r"data\.(store|log|spill_dir)="):
        prepare(DataConfig(log=str(tmp_path / log), store=str(tmp_path / store), spill_dir=spill))
    assert not (tmp_path / "s").exists()
    assert sorted(path.name for path in (tmp_path / "a" / "store").iterdir()) == ["log"]


def test_a_place_where_a_disk_is_mounted_is_refused_with_a_folder_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_mount", lambda self: True)
    with pytest.raises(DataError, match=r"data\.store=/data is a mount point; .* below it: /data/store"):
        next_version(Path("/data"))
