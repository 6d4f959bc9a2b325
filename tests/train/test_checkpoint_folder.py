"""What lies in a run's folder: ours is found again or made again, another's is never taken for ours nor touched."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from configs.errors import ConfigError, DataError
from configs.load import load_config
from runs import logged_steps, run_here, tiny_run
from train import finish as finish_module
from train.evaluate import evaluate

KINDS = ("JSON", "lines of JSON", "text", "safetensors", "TensorBoard", "Parquet")


@pytest.fixture(scope="module")
def trained(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run_here(tiny_run(store, folder, 4))
    return folder


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def extended(store: str, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it that went on to 6 steps."""
    folder = Path(shutil.copytree(trained, tmp_path_factory.mktemp("extended") / "run"))
    run_here(tiny_run(store, folder, 6))
    return folder


def test_a_run_is_trained_resumed_and_evaluated_without_a_pickle(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("something is unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    run_here(tiny_run(store, tmp_path / "run", 2))
    run_here(tiny_run(store, tmp_path / "run", 4))
    evaluate(load_config(tiny_run(store, tmp_path / "run", 4)))
    for path in filter(Path.is_file, (tmp_path / "run").rglob("*")):
        assert kind_of(path) in KINDS, path


def test_the_checkpoint_of_an_older_version_is_never_unpickled(
    store: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for folder in (run_dir / "checkpoints").iterdir():
        (folder / ".metadata").write_bytes(pickle.dumps({"anything": 1}))
    with pytest.raises(DataError, match="choose a new run_dir"):
        run_here(tiny_run(store, run_dir, 6))
    assert "an older version wrote it as a pickle" in capsys.readouterr().out


def test_what_we_did_not_write_is_neither_taken_nor_touched(store: str, run_dir: Path, extended: Path):
    checkpoints = run_dir / "checkpoints"
    for name in ("step-00000004.good", "step-00000099", "step-4", "mine", "best.old"):
        shutil.copytree(checkpoints / "step-00000002", checkpoints / name)
    for folder in (checkpoints, checkpoints / "best", checkpoints / "step-00000002", run_dir):
        (folder / "notes.txt").write_text("mine")
        (folder / "notes.partial").write_text("mine")
    (run_dir / "identity.partial").write_text("mine")
    foreign = [path for path in run_dir.rglob("*") if path.is_file() and is_foreign(path.relative_to(run_dir))]
    before = {path: path.read_bytes() for path in foreign}
    run_here(tiny_run(store, run_dir, 6))
    assert {path: path.read_bytes() for path in foreign} == before
    assert losses_of(run_dir) == losses_of(extended)
    assert not (checkpoints / "step-00000002" / "progress.json").exists(), "the oldest of ours has gone"


def test_a_file_in_the_way_of_a_checkpoint_is_named_and_left(store: str, run_dir: Path):
    (run_dir / "checkpoints" / "step-00000006").write_text("mine")
    with pytest.raises(ConfigError, match="step-00000006 is no checkpoint, and is in the way"):
        run_here(tiny_run(store, run_dir, 6))
    assert (run_dir / "checkpoints" / "step-00000006").read_text() == "mine"


def test_the_summary_of_fewer_steps_is_not_shown_as_that_of_more(
    store: str, run_dir: Path, extended: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(finish_module, "summarise", killed)
        with pytest.raises(KeyboardInterrupt):
            run_here(tiny_run(store, run_dir, 6))
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 4
    run_here(tiny_run(store, run_dir, 6))
    assert summary_of(run_dir) == summary_of(extended)


@pytest.mark.parametrize("damage", ["deleted", "a bit turned", "no file left"])
@pytest.mark.parametrize("num_steps", [4, 6])
def test_a_best_model_that_is_lost_leaves_no_run_stuck(
    store: str, run_dir: Path, damage: str, num_steps: int, capsys: pytest.CaptureFixture[str]
):
    (run_dir / "summary.json").unlink()
    best = run_dir / "checkpoints" / "best"
    if damage == "deleted":
        shutil.rmtree(best)
    else:
        spoil(best / "rank-00000.safetensors", damage)
    run_here(tiny_run(store, run_dir, num_steps))
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["steps"] == num_steps
    if damage == "deleted":
        assert f"{best} is gone" in capsys.readouterr().out
        assert summary["best_step"] > 0
    evaluate(load_config(tiny_run(store, run_dir, num_steps)))


def test_evaluate_reads_a_best_model_in_the_middle_of_its_replacement_and_changes_nothing(store: str, run_dir: Path):
    best = run_dir / "checkpoints" / "best"
    best.rename(best.with_name("best.replaced.partial"))
    before = sorted(str(path) for path in (run_dir / "checkpoints").rglob("*"))
    evaluate(load_config(tiny_run(store, run_dir, 4)))
    assert sorted(str(path) for path in (run_dir / "checkpoints").rglob("*")) == before
    run_here(tiny_run(store, run_dir, 6))
    assert best.is_dir()


def test_a_damaged_summary_is_made_again(
    store: str, run_dir: Path, trained: Path, capsys: pytest.CaptureFixture[str]
):
    text = (run_dir / "summary.json").read_text()
    (run_dir / "summary.json").write_text(text.replace('"steps": 4', '"steps": 4.0'))
    run_here(tiny_run(store, run_dir, 4))
    assert f"{run_dir / 'summary.json'} is damaged" in capsys.readouterr().out
    assert summary_of(run_dir) == summary_of(trained)


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def losses_of(folder: Path) -> list[float]:
    return [row["loss"] for row in logged_steps(folder)]


def summary_of(folder: Path) -> tuple[Any, ...]:
    summary = json.loads((folder / "summary.json").read_text())
    return summary["steps"], summary["best_step"], summary["quality"]


def spoil(path: Path, damage: str) -> None:
    if damage == "no file left":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def is_foreign(path: Path) -> bool:
    """Whether the test above made it."""
    ours = ("step-00000002", "step-00000004", "best")
    in_foreign_folder = path.parts[0] == "checkpoints" and len(path.parts) == 3 and path.parts[1] not in ours
    return in_foreign_folder or path.name in ("notes.txt", "notes.partial", "identity.partial")


def kind_of(path: Path) -> str:
    if path.suffix == ".json":
        json.loads(path.read_text())
        return "JSON"
    if path.suffix == ".jsonl":
        return "lines of JSON" if all(json.loads(line) for line in path.read_text().splitlines()) else ""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            return "safetensors" if file.keys() else ""
    if path.suffix == ".parquet":
        return "Parquet" if pq.read_schema(path).names else ""
    if path.parent.name == "events":
        return "TensorBoard"
    return "text" if path.read_bytes().decode().isprintable() or path.suffix in (".yaml", ".txt") else ""
