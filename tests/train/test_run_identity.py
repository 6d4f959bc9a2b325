"""What a run may change when it resumes, what may differ when it is ranked, and what each session ran on."""

import json
from pathlib import Path

import pytest

from configs.atomic_files import read_json, write_json
from configs.errors import ConfigError
from configs.load import load_config
from configs.renamed_keys import RENAMED
from stores import write_store
from train.evaluation.preflight import main as evaluation_preflight
from train.preflight import main as preflight
from train.run_dir.environment import ENVIRONMENT
from train.run_dir.identity import (
    IDENTITY,
    STOPPED,
    load_run_config,
    mark_stopped,
    open_run_folder,
    refuse_other_evaluation,
)

RUN = ["loss=sampled_softmax", "model.embedding_dim=32", "data.store=S"]
REFUSED = {
    "data.split=global_time": "data.split",
    "model.num_heads=1": "model.num_heads",
    "model.num_blocks=3": "model.num_blocks",
    "model.embedding_dim=64": "model.embedding_dim",
    "model.event_features=[kind]": "model.event_features",
    "model.user_input=add": "model.user_input",
    "data.max_history=3": "data.max_history",
    "data.global_time_valid_fraction=0.5": "data.global_time_valid_fraction",
    "data.long_histories=windows": "data.long_histories",
    "data.min_item_events=3": "data.min_item_events",
    "loss=bce": "loss=sampled_softmax",
    "loss.num_negatives=7": "loss.num_negatives",
    "optimizer.lr=0.5": "optimizer.lr",
}
ALLOWED = [
    *("hardware.num_ranks=1", "hardware.num_threads=1", "sharding=row_wise", "evaluation.batch_size=9"),
    *("evaluation.leave_out_seen=false", "evaluation.num_bootstrap_samples=7", "seed=5", "data.prefetch_mib=0"),
    *("hardware=h100", "data.store=T", "num_epochs=3", "checkpoint.every_steps=5"),
]


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    overrides = [*RUN, f"run_dir={tmp_path / 'run'}"]
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f1"}, world_size=4)
    return str(tmp_path / "run")


@pytest.mark.parametrize("override", REFUSED)
def test_an_evaluation_of_another_run_is_refused_by_key(run_dir: str, override: str):
    with pytest.raises(ConfigError, match=f"trained with {REFUSED[override]}.*cannot be ranked with") as told:
        refuse_other_evaluation(load_run_config(run_dir, [override]), {"data.fingerprint": "f1"})
    assert "damaged" not in str(told.value)


@pytest.mark.parametrize("override", [[], *([each] for each in ALLOWED)])
def test_an_evaluation_may_differ_in_what_changes_no_model(run_dir: str, override: list[str]):
    before = (Path(run_dir) / IDENTITY).read_bytes()
    config = load_run_config(run_dir, override)
    refuse_other_evaluation(config, {"data.fingerprint": "f1"})
    assert config.run_dir == run_dir
    assert (Path(run_dir) / IDENTITY).read_bytes() == before


def test_an_evaluation_on_other_data_names_both_fingerprints(run_dir: str):
    with pytest.raises(ConfigError, match=r"holds other data than run_dir=.* is f2, the run's is f1"):
        refuse_other_evaluation(load_run_config(run_dir), {"data.fingerprint": "f2"})


def test_the_identity_says_which_variant_the_keys_are_of(run_dir: str):
    identity = json.loads((Path(run_dir) / IDENTITY).read_text())
    assert (identity["loss"], identity["model"], identity["optimizer"]) == ("sampled_softmax", "sasrec", "default")
    bce = [*RUN, "loss=bce", f"run_dir={run_dir}"]
    with pytest.raises(ConfigError, match="there loss=sampled_softmax, here bce"):
        open_run_folder(load_config(bce), bce, {"data.fingerprint": "f1"})


def test_a_key_that_did_not_exist_when_the_run_was_started_has_its_default(run_dir: str):
    path = Path(run_dir) / IDENTITY
    older = read_json(path)
    for key in ("data.crop_fraction", "loss.correct_log_q"):
        del older[key]
    write_json(path, older)
    refuse_other_evaluation(load_run_config(run_dir), {"data.fingerprint": "f1"})
    with pytest.raises(ConfigError, match=r"trained with data\.crop_fraction=1\.0"):
        refuse_other_evaluation(load_run_config(run_dir, ["data.crop_fraction=0.5"]), {"data.fingerprint": "f1"})


@pytest.mark.parametrize("key", ["data.source.time_unit=ms", "data.min_user_events=2", "data.columns.user=uid"])
def test_a_key_of_prepare_alone_refuses_no_resume_on_the_same_data(run_dir: str, key: str):
    overrides = [*RUN, key, f"run_dir={run_dir}"]
    with pytest.raises(ConfigError, match=r"there data\."):
        open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f2"})
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f1"})


def test_a_run_of_an_earlier_version_is_known_by_its_old_keys(run_dir: str):
    path = Path(run_dir) / IDENTITY
    now = read_json(path)
    older = {key: value for key, value in now.items() if key not in {new.key for new in RENAMED.values()}}
    write_json(path, {**older, "data.num_lanes": 8, "data.window_row_groups": 8, "guard.max_rollbacks": 3})
    overrides = [*RUN, f"run_dir={run_dir}"]
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f1"})
    other = [*overrides, "data.num_data_shards=4"]
    write_json(path, {**older, "data.num_lanes": 8})
    with pytest.raises(ConfigError, match=r"there data\.num_data_shards=8, here 4"):
        open_run_folder(load_config(other), other, {"data.fingerprint": "f1"})


def test_patience_may_change_when_a_run_goes_on(run_dir: str):
    more = [*RUN, f"run_dir={run_dir}", "evaluation.patience=99"]
    open_run_folder(load_config(more), more, {"data.fingerprint": "f1"})
    assert load_run_config(run_dir).evaluation.patience == 99


def test_the_environment_has_an_entry_a_session(run_dir: str):
    overrides = [*RUN, f"run_dir={run_dir}"]
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f1"}, world_size=2)
    sessions = json.loads((Path(run_dir) / ENVIRONMENT).read_text())
    assert [session["world_size"] for session in sessions] == [4, 2]
    for session in sessions:
        assert session["versions"].keys() >= {"torch", "torchrec", "numpy", "polars", "pyarrow", "hydra-core"}
        assert all(session[key] for key in ("started", "shardrec", "python", "os", "hostname", "devices"))


@pytest.mark.parametrize("older", ['{"python": "3.11"}', "not JSON"])
def test_an_environment_of_an_older_version_is_kept(run_dir: str, older: str):
    (Path(run_dir) / ENVIRONMENT).write_text(older)
    overrides = [*RUN, f"run_dir={run_dir}"]
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "f1"})
    first, _ = json.loads((Path(run_dir) / ENVIRONMENT).read_text())
    assert first == ({"python": "3.11"} if older.startswith("{") else {"unreadable": "not JSON"})


@pytest.mark.parametrize("more", [[], ["num_epochs=99"], ["optimizer.lr=0.5"]])
def test_a_preflight_changes_nothing(tmp_path: Path, more: list[str]):
    store = write_store(tmp_path / "store", [[1, 2, 3]], [[1, 2, 3]])
    overrides = [f"data.store={store}", f"run_dir={tmp_path / 'run'}"]
    assert preflight(overrides) == 0
    assert not (tmp_path / "run").exists()
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "tiny"})
    mark_stopped(tmp_path / "run", 7)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    assert preflight([*overrides, *more]) == (2 if more == ["optimizer.lr=0.5"] else 0)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before
    assert tmp_path / "run" / STOPPED in after


def test_the_preflight_of_an_evaluation_is_one_line_before_any_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    store = write_store(tmp_path / "store", [[1, 2, 3]], [[1, 2, 3]])
    overrides = [f"data.store={store}", f"run_dir={tmp_path / 'run'}", "loss=gbce"]
    open_run_folder(load_config(overrides), overrides, {"data.fingerprint": "tiny"})
    of_run = f"run_dir={tmp_path / 'run'}"
    assert evaluation_preflight([of_run, "hardware.num_ranks=1"]) == 2
    assert "has no final or best model yet" in capsys.readouterr().err, "that is all that is wrong with it"
    for wrong, named in [
        ("data.split=global_time", "data.split=leave_one_out"),
        ("loss.calibration=0.5", "loss.calibration=0.75"),
        ("data.store=none", "none"),
        ("model.num_heads=3", "num_heads=3"),
    ]:
        assert evaluation_preflight([of_run, wrong]) == 2
        said = capsys.readouterr().err
        assert named in said
        assert said.count("\n") == 1
