"""A run is read as its folder records it; what is no run, or none that has ended, is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.runs.recorded_run import read_run
from configs.atomic_files import write_text
from configs.errors import ConfigError, DataError
from configs.load import load_config
from recorded import write_run

STARTED = (
    "import sys, benchmarks.runs.labels, benchmarks.runs.protocol; print([m for m in ('torch',) if m in sys.modules])"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(write_run(tmp_path / "a", ["loss=gbce", "model.embedding_dim=32", "seed=3"], ndcg=0.3, usd=0.5))


def test_a_run_is_what_its_folder_says(folder: Path) -> None:
    run = read_run(str(folder))
    assert (run.keys["loss"], run.keys["model"], run.keys["model.embedding_dim"]) == ("gbce", "sasrec", 32)
    assert run.typed["seed"] == "3"
    assert run.quality["test"]["ndcg@10"] == 0.3
    assert run.summary["cost"]["usd"] == 0.5
    assert [row["step"] for row in run.history] == [1, 1, 2, 2, 3, 3]
    assert run.environment[0]["cpu"] == "a processor"
    assert (run.name, run.has_ranks, set(run.baselines)) == ("a", False, {"popular", "markov"})


def test_its_configuration_is_the_one_that_it_was_started_with(folder: Path) -> None:
    words = ["loss=gbce", "model.embedding_dim=32", "seed=3", f"run_dir={folder}", "data.store=stores/tiny"]
    assert read_run(str(folder)).config() == load_config([*words, "hardware.num_ranks=1"])


def test_a_run_with_a_key_that_this_version_does_not_know_is_read(folder: Path) -> None:
    text = (
        (folder / "config.yaml")
        .read_text()
        .rpartition("# xxh3")[0]
        .replace("\nseed:", "\nof_another_version: 1\nseed:", 1)
    )
    write_text(folder / "config.yaml", text)
    assert read_run(str(folder)).keys["of_another_version"] == 1


def test_a_torn_line_is_left_out_and_a_broken_one_is_counted(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    whole = read_run(str(folder)).history
    path.write_text("[1]\n" + path.read_text() + '{"step": 4, "lo')
    run = read_run(str(folder))
    assert (run.history, run.num_unreadable_lines) == (whole, 1)


def test_what_is_not_there_is_not_needed(folder: Path) -> None:
    for name in ("metrics.jsonl", "environment.json", "overrides.txt"):
        (folder / name).unlink()
    run = read_run(str(folder))
    assert (run.history, run.environment, run.typed) == ([], [], {})


def test_a_folder_that_is_no_run_is_named_with_what_it_is(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "manifest.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    told = {"store": "is a store", "empty": "holds no run", "file": "is a file", "nowhere": "does not exist"}
    for name, text in told.items():
        with pytest.raises(ConfigError, match=f"{name} {text}"):
            read_run(str(tmp_path / name))


def test_a_run_that_has_not_ended_is_named(folder: Path) -> None:
    (folder / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"a has no summary\.json yet"):
        read_run(str(folder))


@pytest.mark.parametrize("name", ["summary.json", "config.yaml"])
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for damaged in (content[: len(content) // 2], b"\xff" + content, content.replace(b"0", b"1", 1), b""):
        (folder / name).write_bytes(damaged)
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            read_run(str(folder))


def test_environments_of_any_shape_do_not_end_the_reading(folder: Path) -> None:
    for content in ("", "{}", "[1]", json.dumps({"cpu": "old"})):
        (folder / "environment.json").write_text(content)
        assert read_run(str(folder)).environment == []


def test_runs_are_read_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
