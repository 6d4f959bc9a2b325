"""What is rendered for a cluster says what was meant, and nothing of it is taken for shell."""

import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from configs.errors import ConfigError
from configs.load import load_cluster, load_config, split_overrides
from configs.schema.cluster import SlurmConfig
from launch.clusters.slurm import Run, script_of, time_limit_s
from launch.start import launch, machine_of, sweep


def script(*words: str, folder: Path = Path("runs/x")) -> str:
    of_cluster, of_run = split_overrides(["cluster=slurm", *words])
    cluster, run = load_cluster(of_cluster), Run(config=load_config(of_run), overrides=of_run)
    assert isinstance(cluster, SlurmConfig)
    return script_of(cluster, [run], folder, ["shardrec", "launch", *words])


def test_overrides_reach_python_as_they_were_typed(tmp_path: Path):
    words = ['data.log="a b;c$(touch made) `id`.parquet"', "data.store=$HOME", 'run_dir="it\'s here"']
    text = script(*words)
    path = tmp_path / "job.sh"
    path.write_text(text[: text.index("say()")] + 'printf "%s\\n" "${overrides[@]}" "$run_dir"\n')
    done = subprocess.run(["bash", str(path)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [*words, "it's here"]
    assert [each.name for each in tmp_path.iterdir()] == ["job.sh"]


def test_environment_flags_and_lines_are_quoted_but_for_the_users_own(tmp_path: Path):
    text = script(
        'cluster.environment=["A=b $(c) d"]',
        'cluster.sbatch_flags=["--comment=two words; $HOME"]',
        'cluster.srun_flags=["--container-image=a b.sqsh"]',
        "cluster.setup=['source my.sh']",
        "cluster.modules=['cuda/12 nccl']",
    )
    lines = text.splitlines()
    assert "export A='b $(c) d'" in lines
    assert "#SBATCH --comment='two words; $HOME'" in lines
    assert "source my.sh" in lines
    assert "module load 'cuda/12 nccl'" in lines
    assert "'--container-image=a b.sqsh'" in text


@pytest.mark.parametrize("words", [[], ["cluster.container=[apptainer,exec,image.sif]"], ["cluster.min_nodes=1"]])
def test_the_script_is_bash(words: list[str]):
    text = script("cluster.nodes=2", "hardware.num_ranks=4", *words)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "@@" not in text


@pytest.mark.parametrize(
    ("words", "directive"),
    [
        (["cluster.nodes=2", "hardware.num_ranks=8", "hardware=h100"], "--gpus-per-node=4"),
        (["hardware.num_ranks=4", "hardware.num_threads=3"], "--cpus-per-task=12"),
        (["cluster.nodes=4", "cluster.min_nodes=2", "hardware.num_ranks=4"], "--nodes=2-4"),
        (["cluster.time_limit=1"], "--signal=B:USR1@30"),
        (["cluster.time_limit=2-00"], "--signal=B:USR1@120"),
        (["run_dir='runs/my run!'"], "--job-name=my-run"),
        (["cluster.exclusive=true"], "--exclusive"),
        ([], "--requeue"),
    ],
)
def test_a_choice_is_a_directive(words: list[str], directive: str):
    config = load_config(split_overrides(words)[1])
    assert f"#SBATCH {directive}" in script(*words, folder=Path(config.run_dir)).splitlines()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["cluster.job_name='a b'"], "cluster.job_name"),
        (["cluster.partition='main --uid=0'"], "cluster.partition"),
        (["cluster.sbatch_flags=['rm -rf']"], "cluster.sbatch_flags"),
        (['cluster.setup=["a\nb"]'], "cluster.setup"),
        (["cluster.time_limit=soon"], "cluster.time_limit"),
        (["cluster.environment=[A]"], "cluster.environment"),
        (["cluster.nodes=3", "hardware.num_ranks=4"], "cluster.nodes=3"),
        (["cluster.min_nodes=2"], "cluster.min_nodes"),
        (["cluster.partion=x"], "cluster.partion"),
    ],
)
def test_a_wrong_choice_is_named(words: list[str], named: str):
    with pytest.raises(ConfigError, match=named):
        script(*words)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("5", 300), ("1:30", 90), ("01:00:00", 3600), ("2-00", 172800), ("1-02:03", 93780), ("0-00:00:09", 9)],
)
def test_time_limits_are_read_as_slurm_reads_them(limit: str, seconds: int):
    assert time_limit_s(limit) == seconds


def test_a_sweep_is_every_combination_in_a_folder_of_its_own():
    runs = sweep(["seed=1,2", "model.dropout=0.1,0.2", "run_dir=runs/s"])
    assert [run[:2] for run in runs] == [
        [f"seed={seed}", f"model.dropout={rate}"] for seed in (1, 2) for rate in ("0.1", "0.2")
    ]
    assert [run[2] for run in runs] == [f"run_dir=runs/s/{number}" for number in range(4)]


def test_a_sweep_of_one_is_the_run_itself():
    assert sweep(["seed=1", "run_dir=runs/s"]) == [["seed=1", "run_dir=runs/s"]]


KUBERNETES = ["cluster=kubernetes", "cluster.image=registry/shardrec:1", "cluster.volume_claim=work", "--dry-run"]


def test_the_manifest_is_what_kubernetes_takes(capsys: pytest.CaptureFixture[str]):
    words = ["cluster.nodes=2", "hardware=h100", "hardware.num_ranks=8", "run_dir=runs/My_Run"]
    more = [
        'cluster.environment=["NCCL_DEBUG=INFO"]',
        'cluster.node_selector=["gpu=h100"]',
        "cluster.service_account=me",
    ]
    assert launch([*KUBERNETES, *words, *more]) == 0
    service, job = yaml.safe_load_all(capsys.readouterr().out)
    for document in (service, job):
        kubernetes_validate.validate(document, "1.30", strict=True)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert "--endpoint=my-run-0.my-run:29500" in container["command"]
    assert container["env"] == [{"name": "NCCL_DEBUG", "value": "INFO"}]
    assert (job["spec"]["completions"], job["spec"]["completionMode"]) == (2, "Indexed")
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]


def test_kubernetes_starts_nothing_by_itself():
    with pytest.raises(ConfigError, match="--dry-run"):
        launch([word for word in KUBERNETES if word != "--dry-run"])


def test_the_commands_of_torchrun_differ_by_the_node_alone(capsys: pytest.CaptureFixture[str]):
    words = ["cluster=torchrun", "cluster.nodes=2", "cluster.endpoint=alpha:29500", "data.log='a b'", "seed=3"]
    assert launch(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0::2] == ["# node 0", "# node 1"]
    assert lines[1].replace("--node=0", "--node=1") == lines[3]
    assert f"{sys.executable} -m launch.clusters.node" in lines[1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--dryrun"], "--dryrun is no flag"),
        (["cluster=torchrun"], "cluster.endpoint"),
        (["cluster=torchrun", "cluster.endpoint=a:1", "cluster.nodes=2", "cluster.node=2"], "cluster.node=2"),
        (["cluster=torchrun", "cluster.endpoint=a:1", "-m", "seed=1,2"], "--multirun"),
        (["cluster=kubernetes"], "cluster.image"),
        ([*KUBERNETES, "cluster.node_selector=[gpu]"], "cluster.node_selector"),
        (["cluster.nodes=2"], "cluster=local is one machine"),
        (["cluster=slrm"], "cluster/slrm"),
    ],
)
def test_a_launch_that_cannot_be_is_one_message(words: list[str], named: str):
    with pytest.raises(ConfigError, match=named):
        launch(words)


def test_slurm_where_it_is_not_installed_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="login node"):
        launch(["cluster=slurm", f"run_dir={tmp_path / 'run'}", "data.store=s"])


@pytest.mark.parametrize(
    ("typed", "ranks"),
    [
        (["cluster=slurm", "cluster.nodes=3"], 3),
        (["cluster=slurm", "cluster.nodes=2", "cluster.gpus_per_node=h100:8"], 16),
        (["cluster=torchrun", "cluster.nodes=2", "cluster.endpoint=a:1"], 2),
    ],
)
def test_a_job_that_leaves_its_ranks_to_the_cluster_gets_those_that_it_asks_for(typed: list[str], ranks: int) -> None:
    assert machine_of(load_cluster(typed))["hardware.num_ranks"] == str(ranks)
