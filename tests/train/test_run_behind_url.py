"""A run that is kept behind ``s3://``: other machines go on with it bit for bit, and no fault costs a checkpoint."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from kills import kill

from configs.errors import REQUEUE_EXIT_CODE, USAGE_EXIT_CODE, ConfigError, exit_code_of
from configs.load import load_config
from data_pipeline.store import object_client
from data_pipeline.store.paths import ObjectPath
from launch.cli import main
from object_store import BUCKET, FaultyProxy
from processes import family_of, wait_for
from ranks import run_ranks
from runs import run_here, run_stopped_at
from train.evaluate import evaluate
from train.progress import RunProgress

REPOSITORY = Path(__file__).parents[2]
NUM_STEPS = 12
RUN = [
    "model.embedding_dim=16",
    "model.feed_forward_dim=16",
    "data.max_history=12",
    "data.global_batch_size=32",
    "log_every_steps=1",
    "checkpoint.every_steps=3",
    "evaluation.every_steps=6",
    "sharding=row_wise",
]
URL = f"s3://{BUCKET}/runs/x"


@pytest.fixture
def proxy(proxy: FaultyProxy) -> FaultyProxy:
    """Before an empty bucket."""
    for each in ObjectPath(f"s3://{BUCKET}/runs").files_below():
        each.unlink()
    return proxy


@pytest.fixture(scope="module")
def whole(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The local folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    overrides = [f"data.store={store}", f"run_dir={folder}", f"num_steps={NUM_STEPS}", *RUN]
    run_ranks(2, train_and_evaluate, overrides)
    return folder


@pytest.mark.slow
def test_another_machine_goes_on_bit_for_bit_and_a_third_one_evaluates(
    store: str, tmp_path: Path, proxy: FaultyProxy, whole: Path
):
    proxy.every(7, "500", "short", "cut", "503")
    assert on_ranks(run_stopped_at, overrides_of(store, tmp_path / "one"), 7) == [REQUEUE_EXIT_CODE] * 2
    assert record("STOPPED")
    shutil.rmtree(tmp_path / "one")
    assert on_ranks(run_here, overrides_of(store, tmp_path / "two")) == [0, 0]
    assert losses_of(record("metrics.jsonl")) == losses_of((whole / "metrics.jsonl").read_text())
    assert quality_of(record("summary.json")) == quality_of((whole / "summary.json").read_text())
    on_ranks(evaluate_here, overrides_of(store, tmp_path / "three"))
    assert json.loads(record("evaluation.json")) == json.loads((whole / "evaluation.json").read_text())
    assert set(proxy.done) == {"500", "short", "cut", "503"}
    names = {each.url.removeprefix(f"{URL}/") for each in ObjectPath(URL).files_below()}
    assert "STOPPED" not in names
    assert any(name.startswith("events/") for name in names)
    assert {"config.yaml", "overrides.txt", "environment.json", "identity.json"} < names


@pytest.mark.slow
def test_the_store_holds_the_last_whole_checkpoints_and_nothing_else_of_them(
    store: str, tmp_path: Path, proxy: FaultyProxy
):
    on_ranks(run_here, overrides_of(store, tmp_path / "one"))
    checkpoints: dict[str, set[str]] = {}
    for each in ObjectPath(f"{URL}/checkpoints").files_below():
        checkpoints.setdefault(each.parts[-2], set()).add(each.name)
    assert set(checkpoints) == {"step-00000009", "step-00000012", "best"}
    for name, objects in checkpoints.items():
        files = json.loads(record(f"checkpoints/{name}/progress.json"))["files"]
        assert objects == {"progress.json", *(f"{file}.{total}" for file, (_, total) in files.items())}


@pytest.mark.slow
def test_a_final_fit_is_kept_there_and_another_run_may_begin_with_it(store: str, tmp_path: Path, proxy: FaultyProxy):
    fit = ["train.refit=true", "num_steps=6"]
    assert on_ranks(run_here, [*overrides_of(store, tmp_path / "one"), *fit]) == [0, 0]
    names = {each.url.removeprefix(f"{URL}/") for each in ObjectPath(URL).files_below()}
    assert {"refit/metrics.jsonl", "checkpoints/final/progress.json"} < names
    assert not any("refit-step" in name for name in names), "they were for a restart alone"
    summary = record("summary.json")
    assert json.loads(summary)["final_model"]["steps"] == 6
    assert on_ranks(run_here, [*overrides_of(store, tmp_path / "two"), *fit]) == [0, 0]
    assert record("summary.json") == summary
    on_ranks(evaluate_here, [*overrides_of(store, tmp_path / "three"), "checkpoint.use=final"])
    assert json.loads(record("evaluation.json"))["test"] == json.loads(summary)["final_model"]["quality"]["test"]
    words = [f"data.store={store}", f"run_dir={tmp_path / 'next'}", *RUN, "num_steps=1", f"init_from={URL}"]
    assert on_ranks(run_here, [*words, f"scratch_dir={tmp_path / 'four'}"]) == [0, 0]
    told = json.loads((tmp_path / "next" / "summary.json").read_text())["warm_start"]
    assert (told["run_dir"], told["checkpoint"], told["num_items_new"]) == (URL, "final", 0)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("without progress.json", marks=pytest.mark.slow),
        pytest.param("without a file", marks=pytest.mark.slow),
        "with a wrong byte",
    ],
)
def test_a_newest_checkpoint_that_is_not_whole_is_passed_over(
    store: str, tmp_path: Path, proxy: FaultyProxy, whole: Path, damage: str, capfd: pytest.CaptureFixture[str]
):
    on_ranks(run_here, [*overrides_of(store, tmp_path / "one"), "num_steps=9"])
    newest = ObjectPath(f"{URL}/checkpoints/step-00000009")
    file = max(newest.files_below().items(), key=lambda each: each[1].st_size)[0]
    content = file.read_bytes()
    if damage == "without progress.json":
        (newest / "progress.json").unlink()
    elif damage == "without a file":
        file.unlink()
    else:
        file.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    assert on_ranks(run_here, overrides_of(store, tmp_path / "two")) == [0, 0]
    told = capfd.readouterr().out
    assert f"{URL}: steps 6 to {NUM_STEPS} of" in told
    assert (f"{newest} is passed over" in told) == (damage != "without progress.json")
    assert losses_of(record("metrics.jsonl")) == losses_of((whole / "metrics.jsonl").read_text())


@pytest.mark.parametrize("what", [pytest.param("progress.json", marks=pytest.mark.slow), "safetensors"])
@pytest.mark.parametrize("asynchronous", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_credentials_that_expire_end_all_ranks_with_one_message_and_the_last_checkpoint_stays_whole(
    store: str,
    tmp_path: Path,
    proxy: FaultyProxy,
    whole: Path,
    what: str,
    asynchronous: str,
    capfd: pytest.CaptureFixture[str],
):
    overrides = [*overrides_of(store, tmp_path / "one"), f"checkpoint.asynchronous={asynchronous}"]
    proxy.fault = lambda method, path: (
        "expired" if method != "GET" and "step-00000009/" in path and what in path else ""
    )
    assert on_ranks(code_here, overrides) == [USAGE_EXIT_CODE] * 2
    told = [line for line in capfd.readouterr().out.splitlines() if "ConfigError" in line]
    assert len(told) == 2
    for line in told:
        assert f"the checkpoint {URL}/checkpoints/step-00000009 could not be written" in line
        assert "expired" in line
        assert f"{URL}/checkpoints/step-00000006 is whole" in line
        assert line.count("start the same command again") == 1
    proxy.fault = lambda method, path: ""
    assert on_ranks(run_here, overrides_of(store, tmp_path / "two")) == [0, 0]
    assert f"{URL}: steps 6 to {NUM_STEPS} of" in capfd.readouterr().out
    assert losses_of(record("metrics.jsonl")) == losses_of((whole / "metrics.jsonl").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("place", ["before progress.json", "after progress.json"])
def test_a_kill_while_best_is_replaced_leaves_one_whole_best(
    store: str, tmp_path: Path, proxy: FaultyProxy, place: str
):
    """The old best where the new one was not whole, the new one where the old one's files were not yet removed."""
    overrides = overrides_of(store, tmp_path / "one")
    on_ranks(run_here, [*overrides, "num_steps=6"])
    before = record("checkpoints/best/progress.json")
    method = "PUT" if place == "before progress.json" else "DELETE"
    asked = "checkpoints/best/progress.json" if method == "PUT" else "checkpoints/best/rank-"
    proxy.fault = lambda used, path: "expired" if used == method and asked in path else ""
    assert on_ranks(code_after_a_new_best, overrides) == [USAGE_EXIT_CODE] * 2
    proxy.fault = lambda used, path: ""
    assert (record("checkpoints/best/progress.json") == before) == (method == "PUT")
    on_ranks(evaluate_here, overrides_of(store, tmp_path / "two"))


@pytest.mark.slow
def test_a_stale_folder_of_another_machine_never_wins(store: str, tmp_path: Path, proxy: FaultyProxy, whole: Path):
    one, two = (overrides_of(store, tmp_path / name) for name in ("one", "two"))
    on_ranks(run_here, [*one, "num_steps=3", "seed=1"])
    for each in ObjectPath(URL).files_below():
        each.unlink()
    on_ranks(run_here, [*two, "num_steps=3"])
    stale = next((tmp_path / "one").glob("*/checkpoints/step-00000003/progress.json"))
    assert stale.is_file()
    on_ranks(run_here, one)
    assert losses_of(record("metrics.jsonl")) == losses_of((whole / "metrics.jsonl").read_text())


@pytest.mark.slow
def test_machines_that_share_no_disk_train_and_go_on_together(
    store: str, tmp_path: Path, proxy: FaultyProxy, whole: Path
):
    assert on_ranks(run_stopped_on_two_machines, store, str(tmp_path), 7) == [REQUEUE_EXIT_CODE] * 2
    assert all(list((tmp_path / f"machine-{rank}").glob("*/STOPPED")) for rank in range(2))
    shutil.rmtree(tmp_path / "machine-1")
    assert on_ranks(run_on_two_machines, store, str(tmp_path)) == [0, 0]
    assert losses_of(record("metrics.jsonl")) == losses_of((whole / "metrics.jsonl").read_text())


@pytest.mark.slow
def test_another_run_is_refused_naming_the_key(store: str, tmp_path: Path, proxy: FaultyProxy):
    on_ranks(run_here, [*overrides_of(store, tmp_path / "one"), "num_steps=3"])
    overrides = [*overrides_of(store, tmp_path / "two"), "optimizer.lr=0.5"]
    before = record("config.yaml")
    with pytest.raises(RuntimeError, match=rf"run_dir={URL} is another run: there optimizer.lr=0.001, here 0.5"):
        on_ranks(run_here, overrides)
    assert main(["train", *overrides, "hardware.num_ranks=2"]) == USAGE_EXIT_CODE
    assert record("config.yaml") == before


@pytest.mark.slow
def test_the_commands_train_and_evaluate_take_a_url(
    store: str, tmp_path: Path, proxy: FaultyProxy, whole: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    overrides = [f"data.store={store}", f"run_dir={URL}", f"num_steps={NUM_STEPS}", *RUN]
    assert main(["train", *overrides, "hardware.num_ranks=2"]) == 0
    assert losses_of(record("metrics.jsonl")) == losses_of((whole / "metrics.jsonl").read_text())
    shutil.rmtree(tmp_path / "cache")
    assert main(["evaluate", f"run_dir={URL}"]) == 0
    assert json.loads(record("evaluation.json")) == json.loads((whole / "evaluation.json").read_text())


@pytest.mark.slow
def test_a_stop_signal_to_the_command_saves_in_the_store_and_asks_to_be_started_again(
    store: str, tmp_path: Path, proxy: FaultyProxy
):
    with start_training([*overrides_of(store, tmp_path / "scratch"), "num_steps=100000"]) as command:
        wait_for(lambda: ObjectPath(f"{URL}/checkpoints/step-00000003/progress.json").is_file())
        command.send_signal(signal.SIGTERM)
        assert command.wait(60) == REQUEUE_EXIT_CODE
    assert ObjectPath(f"{URL}/checkpoints/step-{int(record('STOPPED')):08d}/progress.json").is_file()


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(store: str, tmp_path: Path, proxy: FaultyProxy, whole: Path):
    """Each start is on another machine, and is killed some moments after it has sent something."""
    draw, num_kills = random.Random(0), 0
    while num_kills < 6 and killed_after(
        draw.randrange(4, 45), proxy, overrides_of(store, tmp_path / f"machine-{num_kills}")
    ):
        num_kills += 1
    assert num_kills > 1
    on_ranks(run_here, overrides_of(store, tmp_path / "last"))
    assert losses_of(record("metrics.jsonl")) == losses_of((whole / "metrics.jsonl").read_text())
    on_ranks(evaluate_here, overrides_of(store, tmp_path / "reader"))
    assert json.loads(record("evaluation.json")) == json.loads((whole / "evaluation.json").read_text())


def test_evaluate_says_where_there_is_no_run(tmp_path: Path, proxy: FaultyProxy, capfd: pytest.CaptureFixture[str]):
    assert main(["evaluate", f"run_dir={URL}", f"scratch_dir={tmp_path}"]) == USAGE_EXIT_CODE
    assert f"run_dir={URL} holds no run; train it first" in capfd.readouterr().err


@pytest.mark.parametrize("cluster", ["slurm", "torchrun", "kubernetes"])
def test_clusters_that_need_a_shared_folder_refuse_a_url(cluster: str, capfd: pytest.CaptureFixture[str]):
    words = {"torchrun": ["cluster.endpoint=a:1"], "kubernetes": ["cluster.image=a", "cluster.volume_claim=b"]}
    code = main(["launch", f"cluster={cluster}", *words.get(cluster, []), f"run_dir={URL}", "--dry-run"])
    assert code == USAGE_EXIT_CODE
    assert f"run_dir={URL} is a URL, which cluster={cluster} does not take" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("run_dir", "words"), [("ftp://host/run", "use s3://"), ("s3://bucket", "BUCKET/PATH"), ("s3:///run", "names no")]
)
def test_a_url_that_cannot_hold_a_run_is_refused(run_dir: str, words: str):
    with pytest.raises(ConfigError, match=f"run_dir={run_dir}.*{words}"):
        load_config([f"run_dir={run_dir}"])


def test_a_file_url_is_a_local_folder():
    assert load_config(["run_dir=file:///runs/a%20b"]).run_dir == "/runs/a b"


def on_ranks(function: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``function`` of this file returns on two ranks, which are connected as this process is."""
    connection = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return run_ranks(2, connected, connection, function.__name__, args)


def connected(connection: dict[str, str], name: str, args: tuple[Any, ...]) -> Any:
    os.environ |= connection
    object_client.RETRY_DELAYS_S = (0.01, 0.02, 0.04, 0.08, 0.1, 0.1)
    object_client.S3_WRITE_ATTEMPTS = 1
    return globals()[name](*args)


def overrides_of(store: str, scratch: Path) -> list[str]:
    return [f"data.store={store}", f"run_dir={URL}", f"scratch_dir={scratch}", f"num_steps={NUM_STEPS}", *RUN]


def record(name: str) -> str:
    return ObjectPath(f"{URL}/{name}").read_text()


def losses_of(metrics: str) -> dict[int, float]:
    rows = [json.loads(line) for line in metrics.splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert list(losses) == list(range(1, NUM_STEPS + 1))
    return losses


def quality_of(summary: str) -> Any:
    return json.loads(summary)["quality"]


def train_and_evaluate(overrides: list[str]) -> None:
    run_here(overrides)
    evaluate_here(overrides)


def evaluate_here(overrides: list[str]) -> None:
    evaluate(load_config(overrides))


def start_training(overrides: list[str]) -> "subprocess.Popen[bytes]":
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "launch", "train", *overrides, "hardware.num_ranks=2"]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def killed_after(num_puts: int, proxy: FaultyProxy, overrides: list[str]) -> bool:
    """Whether training was killed when it had sent so much, or was at its end before."""
    before = proxy.num_puts
    command = start_training(overrides)
    wait_for(lambda: command.poll() is not None or proxy.num_puts > before + num_puts)
    kill(family_of(command.pid))
    return command.wait() != 0


def code_here(overrides: list[str]) -> int:
    return exit_code_of(lambda: run_here(overrides))


def code_after_a_new_best(overrides: list[str]) -> int:
    """Whatever the next validation finds is better than what was found before."""
    real = RunProgress.record_validation

    def better(self: RunProgress, step: int, quality: dict[str, float], metric: str) -> bool:
        self.best_value = None
        return real(self, step, quality, metric)

    RunProgress.record_validation = better  # type: ignore[method-assign]
    return code_here(overrides)


def on_a_machine_of_its_own(store: str, folder: str) -> list[str]:
    """What a rank alone on its machine is started with, and sees in its environment."""
    os.environ |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return overrides_of(store, Path(folder) / f"machine-{dist.get_rank()}")


def run_on_two_machines(store: str, folder: str) -> int:
    return run_here(on_a_machine_of_its_own(store, folder))


def run_stopped_on_two_machines(store: str, folder: str, step: int) -> int:
    return run_stopped_at(on_a_machine_of_its_own(store, folder), step)
