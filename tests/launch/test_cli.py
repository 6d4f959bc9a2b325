"""The command line starts the right programs and fails with one line."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES
from configs.atomic_files import write_text
from configs.load import load_config, resolved_yaml
from configs.reference import cluster_keys, run_keys, server_keys
from launch import cli, command
from launch.help import VERBS, described, verb_help
from processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]


class Ended:
    """A child that has ended with ``code``."""

    def __init__(self, code: int) -> None:
        self.code = code

    def wait(self) -> int:
        return self.code


class Started(list[tuple[list[str], dict[str, str]]]):
    """The commands that were started, as ``python -m MODULE``; ``codes`` are the exit codes to answer, then 0."""

    def __init__(self) -> None:
        super().__init__()
        self.codes: list[int] = []

    def start(self, command: list[str], *, env: dict[str, str], preexec_fn: Callable[[], None]) -> Ended:
        python, *through, module = command[:4]
        assert through == ["-m", "configs.start"], "so that it ends with the command"
        self.append(([python, "-m", module, *command[4:]], env))
        return Ended(self.codes.pop(0) if self.codes else 0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    commands = Started()
    monkeypatch.setattr(command.subprocess, "Popen", commands.start)
    return commands


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["config", "-h"], ["doctor", "--help"]])
def test_help_imports_neither_hydra_nor_torch(words: list[str]) -> None:
    program = (
        "import sys; from launch.cli import main; code = main(sys.argv[1:]); "
        "assert not {'hydra', 'omegaconf', 'torch'} & set(sys.modules); sys.exit(code)"
    )
    called = [sys.executable, "-c", program, *words]
    answer = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("usage: shardrec")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_describes_its_keys_with_their_defaults(verb: str) -> None:
    told = " ".join(verb_help(verb).split())
    keys = {key.name: key for key in [*run_keys(), *cluster_keys(), *server_keys()]}
    for name in VERBS[verb].keys:
        assert f" {name} " in told
        assert " ".join(described(keys[name]).split()) in told


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert f"\n  {verb} " in capsys.readouterr().out
    assert cli.main([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: shardrec {verb} ")


def test_help_tells_what_every_benchmark_needs() -> None:
    assert sorted(name for name, _ in VERBS["bench"].options) == sorted(NAMES)


@pytest.mark.parametrize("verb", ["config", "prepare", "train", "evaluate", "recommend"])
def test_a_wrong_key_is_one_line_on_stderr_before_anything_starts(
    verb: str, started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "model.num_haeds=3"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("ConfigError: ")
    assert "model.num_haeds" in told
    assert told.count("\n") == 1
    assert not started


def test_an_unknown_verb_is_refused_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert capsys.readouterr().err == "ConfigError: trian is not a verb; did you mean train?\n"
    assert cli.main(["xyz", "--help"]) == 2
    assert "xyz is not a verb; use one of config, " in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"shardrec {version('shardrec')}\n"


@pytest.mark.parametrize("flag", [["--config-dir", "mine"], ["--config-dir=mine"], ["config_dir=mine"]])
def test_a_folder_of_ones_own_reaches_every_process(
    flag: list[str], started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "ours.yaml").write_text("# @package _global_\nnum_epochs: 3\n")
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *flag, "experiment=ours", "data.store=store"]) == 0
    assert len(started) == 2
    for words, _ in started:
        assert f"config_dir={tmp_path / 'mine'}" in words
        assert "experiment=ours" in words


def test_what_the_environment_says_is_the_same_in_every_process(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    assert cli.main(["train", "data.store=${oc.env:SCRATCH}", "run_dir=r/${now:%f}"]) == 0
    words = [[word for word in line if word.startswith(("data.store=", "run_dir="))] for line, _ in started]
    assert words[0] == words[1]
    assert sorted(words[0])[0] == f"data.store={tmp_path}"


def test_config_prints_the_resolved_run(capsys: pytest.CaptureFixture[str]) -> None:
    machine = ["hardware.device=cpu", "hardware.num_threads=1", "data.memory_gib=2"]
    assert cli.main(["config", "experiment=smoke", *machine]) == 0
    assert capsys.readouterr().out == (ROOT / "tests" / "golden" / "smoke.yaml").read_text()


def test_train_prepares_a_missing_store_first(started: Started, tmp_path: Path) -> None:
    machine = ["hardware.device=cpu", "hardware.num_ranks=2", "hardware.num_threads=3", "data.memory_gib=1"]
    overrides = ["data.log=x.parquet", f"data.store={tmp_path}", *machine]
    assert cli.main(["train", *overrides]) == 0
    (prepare, _), (preflight, _), (train, environment) = started
    assert prepare == [sys.executable, "-m", "data_pipeline.prepare", "--wait", *overrides]
    assert preflight == [sys.executable, "-m", "train.preflight", *overrides]
    assert train == [sys.executable, "-m", "train.supervision.elastic_agent", "--ranks=2", "train", *overrides]
    assert environment["OMP_NUM_THREADS"] == "3"


def test_train_on_one_rank_with_a_store_is_plain_python(started: Started, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    overrides = ["data.log=x.parquet", f"data.store={tmp_path}", "hardware.num_ranks=1"]
    cli.main(["train", *overrides])
    modules = [command[1:3] for command, _ in started]
    assert modules == [["-m", "train.preflight"], ["-m", "train"]]


def test_train_starts_no_rank_after_a_failed_preflight(started: Started, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    started.codes = [2]
    assert cli.main(["train", f"data.store={tmp_path}"]) == 2
    assert len(started) == 1


def test_train_ends_with_the_code_of_a_failed_prepare(started: Started, tmp_path: Path) -> None:
    started.codes = [7]
    assert cli.main(["train", "data.log=x.parquet", f"data.store={tmp_path}"]) == 7
    assert len(started) == 1


def test_train_returns_the_code_of_its_child(started: Started, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    started.codes = [0, 75, 0, -9]
    assert cli.main(["train", f"data.store={tmp_path}"]) == 75
    assert cli.main(["train", f"data.store={tmp_path}"]) == 128 + 9


def test_a_folder_named_like_a_package_of_ours_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__main__.py").write_text("raise SystemExit(99)")
    command = [sys.executable, "-m", "launch", "bench", "no_such_benchmark"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert answer.returncode not in (0, 99)


def test_sigterm_reaches_the_child(tmp_path: Path) -> None:
    """The child says ready, is told to end through its parent, and answers with a code of its own."""
    child = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); "
        "print('ready', flush=True); time.sleep(30)"
    )
    parent = (
        "import subprocess, sys; from launch.command import wait_for; "
        f"sys.exit(wait_for(subprocess.Popen([sys.executable, '-c', {child!r}])))"
    )
    with subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=PATIENCE_S) == 75


def test_bench_needs_a_name(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "num_steps=3"]) == 2
    assert "NAME" in capsys.readouterr().err
    assert cli.main(["bench", "throughput"]) == 0
    assert started[0][0][1:] == ["-m", "benchmarks", "throughput"]


def test_evaluate_runs_on_as_many_ranks_as_the_run_had(started: Started, tmp_path: Path) -> None:
    write_text(tmp_path / "config.yaml", resolved_yaml(load_config(["hardware.num_ranks=4"])))
    assert cli.main(["evaluate", f"run_dir={tmp_path}"]) == 0
    assert started[0][0][1:] == ["-m", "train.evaluation.preflight", f"run_dir={tmp_path}"]
    assert started[1][0][-5:] == [
        "-m",
        "train.supervision.elastic_agent",
        "--ranks=4",
        "train.evaluate",
        f"run_dir={tmp_path}",
    ]


def test_evaluate_refuses_a_folder_without_a_run(
    started: Started, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", f"run_dir={tmp_path}"]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert not started


def test_launch_here_sets_the_environment_of_the_cluster(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_WORD", "before")
    (tmp_path / "manifest.json").write_text("{}")
    assert cli.main(["launch", 'cluster.environment=["A_WORD=b = c"]', f"data.store={tmp_path}"]) == 0
    assert [environment["A_WORD"] for _, environment in started] == ["b = c", "b = c"]
