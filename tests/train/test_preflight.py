"""What would end a run at once ends the preflight with one line that names it, and starts nothing."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.load import load_config
from data_pipeline.prepare.prepare import prepare
from prepared_store import synthetic_store
from stores import write_store
from train.preflight import main
from train.run_dir.identity import open_run_folder


def test_a_store_and_a_new_folder_pass(tmp_path: Path):
    assert main(_overrides(tmp_path)) == 0
    assert not (tmp_path / "run").exists(), "the ranks make it"


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
        (["hardware.num_ranks=129"], "data.global_batch_size=128"),
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
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "tiny"})
    before = (tmp_path / "run" / "config.yaml").read_text()
    assert main([*overrides, "optimizer.lr=0.5"]) == 2
    assert "optimizer.lr=0.001, here 0.5" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.yaml").read_text() == before
    assert main([*overrides, "hardware.num_ranks=1", "num_epochs=99"]) == 0


def test_a_store_of_another_log_than_the_one_named_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    synthetic_store(tmp_path)
    overrides = _overrides(tmp_path)
    for log in (tmp_path / "log.parquet", tmp_path / "*.parquet"):
        assert main([*overrides, f"data.log={log}"]) == 0
    assert main([*overrides, f"data.log={tmp_path / 'other.parquet'}"]) == 2
    assert "was made from" in capsys.readouterr().err


MADE_WITH = [
    *(
        "data.columns.user=user_id",
        "data.event_types=[1,2]",
        "data.columns.event_type=kind",
        "data.min_user_events=2",
    ),
    *("data.deduplicate=true", "data.source.time_unit=ms", "data.features.kind.max_values=5"),
]


@pytest.fixture
def prepared(tmp_path: Path) -> list[str]:
    """The overrides of a run on a store that was prepared with the choices of ``MADE_WITH``."""
    log = {"user_id": [1, 1, 2, 2], "item_id": [5, 6, 5, 6], "timestamp": [1, 2, 3, 4], "kind": list("1212")}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    overrides = [f"data.store={tmp_path / 'store'}", f"run_dir={tmp_path / 'run'}"]
    prepare(load_config([*overrides, *MADE_WITH, f"data.log={tmp_path / 'log.parquet'}"]).data)
    return overrides


@pytest.mark.parametrize(
    "said",
    [
        *([], MADE_WITH, MADE_WITH[3:], ["data=taobao"], ["experiment=smoke"]),
        ["data.event_types=[2,1]", "data.columns={event_type: kind}", "+data.features.kind.column=kind"],
        ["data.memory_gib=1", "data.max_bad_fraction=0.5", "data.engine=spark", "data.max_history=7"],
    ],
)
def test_what_a_store_was_prepared_with_need_not_be_said_and_may_be(prepared: list[str], said: list[str]):
    assert main([*said, *prepared]) == 0


@pytest.mark.parametrize(
    ("said", "key", "made", "asked"),
    [
        (["data.min_user_events=5"], "min_user_events", "data.min_user_events=2", "data.min_user_events=5"),
        (["data.min_item_events=3"], "min_item_events", "data.min_item_events=1", "data.min_item_events=3"),
        (["data.deduplicate=false"], "deduplicate", "data.deduplicate=true", "data.deduplicate=false"),
        (["data.columns.user=uid"], "columns.user", "data.columns.user=user_id", "data.columns.user=uid"),
        (["data.columns={user: uid}"], "columns.user", "data.columns.user=user_id", "data.columns.user=uid"),
        (["data.source.time_unit=s"], "source.time_unit", "data.source.time_unit=ms", "data.source.time_unit=s"),
        (["data.event_types=[]"], "event_types", 'data.event_types=["1", "2"]', "data.event_types=[]"),
        (["data.features.kind.max_values=6"], "features.kind.max_values", "max_values=5", "max_values=6"),
        (["data.features.price.type=number"], "features.price.type", "no data.features.price.type", "type=number"),
    ],
)
def test_a_store_that_was_prepared_with_other_choices_than_the_user_gives_is_refused(
    prepared: list[str], capsys: pytest.CaptureFixture[str], said: list[str], key: str, made: str, asked: str
):
    assert main([*prepared, *said]) == 2
    error = capsys.readouterr().err
    assert f"{prepared[0]} was prepared with {made if made.startswith(('data', 'no')) else ''}" in error
    before, after = error.split(", not with ")
    assert made in before
    assert asked in after
    assert f"`shardrec prepare`, or leave out data.{key} to" in error
    assert not Path(prepared[1].removeprefix("run_dir=")).exists()


def test_all_choices_that_do_not_fit_are_told_at_once(prepared: list[str], capsys: pytest.CaptureFixture[str]):
    assert main([*prepared, "data.min_user_events=5", "data.deduplicate=false", "data.source.time_unit=ms"]) == 2
    assert "not with data.min_user_events=5, data.deduplicate=false; " in capsys.readouterr().err


def test_the_files_of_an_append_may_be_written_otherwise_than_those_of_the_store(tmp_path: Path):
    for user, append in (("a", "false"), ("b", "true")):
        overrides = [f"data.store={tmp_path / 'store'}", f"run_dir={tmp_path / user}"]
        pq.write_table(pa.table({user: [1], "item_id": [5], "timestamp": [1]}), tmp_path / f"{user}.parquet")
        of_file = [f"data.log={tmp_path / user}.parquet", f"data.columns.user={user}", f"data.append={append}"]
        prepare(load_config([*overrides, *of_file]).data)
        assert main([*overrides, *of_file]) == 0
    assert main([*overrides, "data.min_user_events=2"]) == 2


@pytest.mark.parametrize("told", [None, "{}", "[]", '{"options": {"min_user_events": 5}}'])
def test_a_store_that_does_not_say_what_it_was_prepared_with_passes(tmp_path: Path, told: str | None):
    overrides = _overrides(tmp_path)
    if told is not None:
        (tmp_path / "store" / "prepared_from.json").write_text(told)
    assert main([*overrides, "data.min_user_events=5", "data.deduplicate=true", "data.columns.user=u"]) == 0


def test_a_damaged_record_of_what_a_store_was_prepared_with_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    overrides = _overrides(tmp_path)
    (tmp_path / "store" / "prepared_from.json").write_text('{"options"')
    assert main(overrides) == 2
    assert "prepared_from.json cannot be read" in capsys.readouterr().err


def _overrides(folder: Path) -> list[str]:
    store = folder / "store"
    if not store.exists():
        write_store(store, [[1, 2, 3]], [[1, 2, 3]])
    return [f"data.store={store}", f"run_dir={folder / 'run'}"]
