"""Jobs of two nodes on a real Slurm: they train, save when told to, queue themselves again and lose nothing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from prepared_store import synthetic_store
from processes import PATIENCE_S, wait_for
from slurm_cluster import slurm_cluster, why_not

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=why_not())]

REPOSITORY = Path(__file__).parents[2]
STEPS = 150
RUN = [
    "model.embedding_dim=16",
    "data.global_batch_size=32",
    "checkpoint.every_steps=10",
    "log_every_steps=5",
    "evaluation.every_steps=50",
    f"num_steps={STEPS}",
    "hardware.num_ranks=2",
]
ENDLESS = ["num_steps=1000000", "evaluation.patience=100000", "evaluation.every_steps=1000"]
SLURM = ["cluster=slurm", "cluster.nodes=2"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    with slurm_cluster() as variables:
        yield os.environ | variables | {"PYTHONPATH": str(REPOSITORY), "PYTHONSAFEPATH": "1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return synthetic_store(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def quality(slurm: dict[str, str], store: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Of the same run on this machine without Slurm, never interrupted."""
    run_dir = tmp_path_factory.mktemp("whole")
    command = [sys.executable, "-m", "launch", "train", f"data.store={store}", f"run_dir={run_dir}", *RUN]
    subprocess.run(command, env=slurm, check=True, capture_output=True)
    return quality_of(run_dir)


def test_two_nodes_train_what_one_machine_trains(
    slurm: dict[str, str], store: str, quality: dict[str, float], tmp_path: Path
):
    with launched(slurm, store, tmp_path / "run") as command:
        told, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 0, told
    assert re.search(r"node 0 shardrec1 .*: 1 rank\n", told)
    assert re.search(r"node 1 shardrec2 .*: 1 rank\n", told)
    assert "COMPLETED" in told
    assert quality_of(tmp_path / "run") == quality


@pytest.mark.parametrize(
    "interrupt",
    [
        pytest.param(["scontrol", "requeue"], id="requeued"),
        pytest.param(["scancel", "--batch", "--signal=USR1"], id="warned"),
        pytest.param(["scancel", "--signal=TERM"], id="ranks told to end"),
    ],
)
def test_an_interrupted_job_goes_on_by_itself_and_loses_nothing(
    interrupt: list[str], slurm: dict[str, str], store: str, quality: dict[str, float], tmp_path: Path
):
    with launched(slurm, store, tmp_path / "run") as command:
        wait_until_it_trains(tmp_path / "run", command)
        subprocess.run([*interrupt, job_of(tmp_path / "run")], env=slurm, check=True)
        told, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 0, told
    assert "start 2: on shardrec" in told
    assert first_step_of(told, start=2) > 0
    assert quality_of(tmp_path / "run") == quality


def test_a_preempted_job_goes_on_by_itself_and_loses_nothing(
    slurm: dict[str, str], store: str, quality: dict[str, float], tmp_path: Path
):
    urgent = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    with launched(slurm, store, tmp_path / "run", "cluster.partition=main") as command:
        wait_until_it_trains(tmp_path / "run", command)
        subprocess.run(urgent, env=slurm, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
        told, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 0, told
    assert "start 2: on shardrec" in told
    assert quality_of(tmp_path / "run") == quality


def test_a_cancelled_job_stays_ended(slurm: dict[str, str], store: str, tmp_path: Path):
    with launched(slurm, store, tmp_path / "run") as command:
        wait_until_it_trains(tmp_path / "run", command)
        job = job_of(tmp_path / "run")
        subprocess.run(["scancel", job], env=slurm, check=True)
        told, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 1
    assert f"job {job}: CANCELLED" in told
    wait_for(lambda: not asked(slurm, "squeue", "-h", "-j", job))
    assert "Restarts=0" in asked(slurm, "scontrol", "show", "job", job)


def test_a_sweep_is_an_array_with_a_folder_for_each_run(slurm: dict[str, str], store: str, tmp_path: Path):
    with launched(slurm, store, tmp_path / "sweep", "-m", "seed=1,2", "num_steps=5", "cluster.nodes=1") as command:
        told, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 0, told
    found = [(tmp_path / "sweep" / str(number) / "overrides.txt").read_text().split() for number in (0, 1)]
    assert ["seed=1" in found[0], "seed=2" in found[1]] == [True, True]
    assert all(quality_of(tmp_path / "sweep" / str(number)) for number in (0, 1))


def test_a_sweep_over_a_store_that_is_not_there_prepares_it_once_and_trains_all(
    slurm: dict[str, str], tmp_path: Path
):
    store = f"{tmp_path}/store"
    log = [
        "data=synthetic",
        "data.synthetic.num_users=300",
        "data.synthetic.num_items=50",
        f"data.log={tmp_path}/log.parquet",
    ]
    sweep = ["-m", "seed=1,2,3,4", "num_steps=5", "cluster.nodes=1", "hardware.num_ranks=1", *log]
    with launched(slurm, store, tmp_path / "sweep", *sweep) as command:
        told, _ = command.communicate()
    assert command.returncode == 0, told
    assert all(quality_of(tmp_path / "sweep" / str(number)) for number in range(4))


def test_a_folder_with_a_percent_sign_a_rank_with_its_log_and_its_processors_and_then_an_evaluation(
    slurm: dict[str, str], store: str, tmp_path: Path
):
    """Slurm takes %a and %j of a file's name for its own; a rank may run on what its node's task was given."""
    run_dir = tmp_path / "lr%a_%j"
    with launched(slurm, store, run_dir, "num_steps=5", "cluster.cpus_per_rank=2") as command:
        told, _ = command.communicate()
    assert command.returncode == 0, told
    job = job_of(run_dir)
    names = sorted(each.name for each in (run_dir / "logs").iterdir())
    assert names == ["rank-0.log", "rank-1.log", f"slurm-{job}.log"]
    assert ": steps 0 to 5" in (run_dir / "logs" / "rank-0.log").read_text()
    assert re.search(r"node 1 shardrec2 .*, CPUs [0-9,-]+: 1 rank\n", told)
    assert (run_dir / "job.sbatch").stat().st_mode & 0o777 == 0o600
    for words in (
        ["evaluate", *SLURM, f"run_dir={run_dir}", "hardware.num_ranks=4"],
        ["evaluate", f"run_dir={run_dir}"],
    ):
        launch = [sys.executable, "-m", "launch", "launch", *words]
        done = subprocess.run(launch, env=slurm, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        evaluation = json.loads((run_dir / "evaluation.json").read_text())
        assert evaluation["test"] == quality_of(run_dir)
        (run_dir / "evaluation.json").unlink()
    assert (run_dir / "evaluate-job.sbatch").is_file()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("cluster.partition=no_such", "invalid partition"),
        ("cluster.time_limit=1-00:00:00", "cluster.time_limit"),
        ("cluster.constraint=no_such", "Invalid feature"),
        ("cluster.sbatch_flags=[--no-such-flag]", "no-such-flag"),
        ("model.num_haeds=3", "model.num_haeds"),
    ],
)
def test_a_job_that_cannot_run_is_one_message_and_not_queued(
    override: str, named: str, slurm: dict[str, str], store: str, tmp_path: Path
):
    with launched(slurm, store, tmp_path / "run", override) as command:
        told, _ = command.communicate(timeout=PATIENCE_S)
    assert command.returncode == 2
    assert named.lower() in told.lower()
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists(), "a launch that failed leaves nothing"
    wait_for(lambda: not asked(slurm, "squeue", "-h"))


def test_one_run_is_not_queued_twice(slurm: dict[str, str], store: str, tmp_path: Path):
    run_dir = tmp_path / "run"
    with launched(slurm, store, run_dir, "cluster.follow=false", "num_steps=100000") as first:
        assert first.wait(timeout=PATIENCE_S) == 0
    with launched(slurm, store, run_dir) as second:
        told, _ = second.communicate(timeout=PATIENCE_S)
    job = job_of(run_dir)
    subprocess.run(["scancel", job], env=slurm, check=True)
    assert second.returncode == 2
    assert f"belongs to job {job}" in told


@pytest.mark.slow
def test_a_job_of_two_minutes_saves_before_its_end_and_goes_on_in_another(
    slurm: dict[str, str], store: str, tmp_path: Path
):
    with launched(slurm, store, tmp_path / "run", "cluster.time_limit=2", *ENDLESS) as command:
        assert command.stdout is not None
        told = ""
        while told.count(": steps ") < 2 and (line := command.stdout.readline()):
            told += line
        cancel(slurm, job_of(tmp_path / "run"), command)
    assert "start 2: on shardrec" in told
    assert first_step_of(told, start=2) == int(re.findall(r"saved at step (\d+): queued again", told)[0]) > 0


def launched(variables: dict[str, str], store: str, run_dir: Path, *more: str) -> "subprocess.Popen[str]":
    words = [*SLURM, *RUN, f"data.store={store}", f"run_dir={run_dir}", *more]
    command = [sys.executable, "-m", "launch", "launch", *words]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def cancel(variables: dict[str, str], job: str, command: "subprocess.Popen[str]") -> None:
    """Until ``command``, which follows ``job``, has seen its end: Slurm ignores a scancel while it ends a job."""
    while command.poll() is None:
        subprocess.run(["scancel", job], env=variables, check=False)
        with suppress(subprocess.TimeoutExpired):
            command.communicate(timeout=5)


def quality_of(run_dir: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run_dir / "summary.json").read_text())["quality"]["test"]
    return found


def job_of(run_dir: Path) -> str:
    return str(json.loads((run_dir / "job.json").read_text())["job_id"])


def first_step_of(told: str, start: int) -> int:
    """The step that the ``start``-th session of a job began with."""
    return int(re.findall(r": steps (\d+) to ", told)[start - 1])


def wait_until_it_trains(run_dir: Path, command: "subprocess.Popen[str]") -> None:
    metrics = run_dir / "metrics.jsonl"
    wait_for(lambda: command.poll() is not None or (metrics.exists() and metrics.stat().st_size > 0))


def asked(variables: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False).stdout
