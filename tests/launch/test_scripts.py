"""What is rendered for a cluster says what was meant, and nothing of it is taken for shell."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_cluster, load_config, split_overrides
from configs.schema.cluster import SlurmConfig
from launch.clusters.slurm import FilesMade, Job, Run, script_of, time_limit_s
from launch.start import launch, machine_of, sweep
from launch.verbs import EVALUATE, TRAIN, Verb
from programs import Programs


def script(*words: str, folder: Path = Path("runs/x"), verb: Verb = TRAIN, is_shown: bool = False) -> str:
    of_cluster, of_run = split_overrides(["cluster=slurm", *words])
    cluster, run = load_cluster(of_cluster), Run(config=load_config(of_run), overrides=of_run)
    assert isinstance(cluster, SlurmConfig)
    job = Job(cluster=cluster, verb=verb, runs=[run], folder=folder, command=["shardrec", "launch", *words])
    return script_of(job, is_shown=is_shown)


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
        (["cluster.time_limit=UNLIMITED"], "--signal=B:USR1@120"),
        (["cluster.time_limit=unlimited"], "--time=unlimited"),
        (["cluster.time_limit=0"], "--signal=B:USR1@120"),
        (["cluster.time_limit=0"], "--time=0"),
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
        (["cluster.time_limit=-5"], "cluster.time_limit"),
        (["cluster.bind_ranks=sockets"], "cluster.bind_ranks=sockets"),
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
    [
        ("0", None),
        ("00:00:00", None),
        ("UNLIMITED", None),
        ("infinite", None),
        ("5", 300),
        ("1:30", 90),
        ("01:00:00", 3600),
        ("2-00", 172800),
        ("1-02:03", 93780),
        ("0-00:00:09", 9),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(limit: str, seconds: int | None):
    assert time_limit_s(limit) == seconds


@pytest.mark.parametrize("folder", ["runs/lr%a", "runs/u%j", "runs/100%"])
def test_a_percent_sign_of_the_folder_is_no_pattern_of_slurm(folder: str):
    (line,) = [line for line in script(folder=Path(folder)).splitlines() if line.startswith("#SBATCH --output=")]
    pattern = line.partition("=")[2].strip("'")
    assert pattern.replace("%%", "%") == str(Path(folder, "logs", "slurm-%j.log").absolute())
    assert pattern.replace("%%", "").count("%") == 1


def test_no_value_of_the_environment_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    secret = 'cluster.environment=["WANDB_API_KEY=s3cr3t value","PLAIN=s3cr3t"]'
    run = ["data.store=s", f"run_dir={tmp_path / 'run'}"]
    for cluster in (["cluster=slurm"], ["cluster=torchrun", "cluster.endpoint=a:1"], ["cluster=local"]):
        assert launch([*cluster, "--dry-run", secret, *run]) == 0
        shown = capsys.readouterr()
        assert "s3cr3t" not in shown.out + shown.err
    text = script(secret)
    assert "export WANDB_API_KEY='s3cr3t value'" in text
    assert "s3cr3t" not in next(line for line in text.splitlines() if line.startswith("# Written by"))


def test_a_torchrun_command_takes_the_environment_from_the_shell_it_is_pasted_in(capsys: pytest.CaptureFixture[str]):
    words = ["cluster=torchrun", "cluster.endpoint=a:1", "cluster.environment=['TOKEN=x']", "data.store=s"]
    assert launch(words) == 0
    line = capsys.readouterr().out.splitlines()[1].replace(sys.executable, "sh -c 'printf %s \"$TOKEN\"' --")
    has, lacks = (
        subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, check=False)
        for env in ({"TOKEN": "mine", "PATH": "/usr/bin:/bin"}, {"PATH": "/usr/bin:/bin"})
    )
    assert has.stdout == "mine"
    assert lacks.returncode != 0
    assert "TOKEN" in lacks.stderr


def test_a_secret_in_a_wrong_variable_is_not_told(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError) as error:
        script('cluster.environment=["MY-TOKEN=s3cr3t"]')
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "ended_by"),
    [
        (["false", "true"], "`false` ended with code 1"),
        (["export A=1", "source missing.sh"], "`source missing.sh` ended with code 1"),
        (["if true; then", "  echo inside", "fi", "true"], ""),
        (["if false; then", "  echo inside", "fi"], ""),
        (["cat <<EOF", "some text", "EOF"], ""),
        (["echo a \\", "  b", "# a comment"], ""),
        ([], ""),
    ],
)
def test_a_line_of_setup_that_fails_ends_the_job(lines: list[str], ended_by: str, tmp_path: Path):
    text = script(f"cluster.setup={lines!r}")
    done = subprocess.run(
        ["bash", "-c", text[: text.index("case ")] + "echo reached"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("reached" in done.stdout) == (not ended_by), done.stderr
    assert ended_by in done.stderr
    assert done.returncode == (2 if ended_by else 0)


def test_a_module_that_cannot_be_loaded_ends_the_job(tmp_path: Path):
    text = script("cluster.modules=['cuda/99']", "cluster.setup=['echo reached']")
    command = "module() { return 1; }\n" + text[: text.index("case ")]
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "reached" in done.stdout) == (2, False)
    assert "module load cuda/99" in done.stderr


@pytest.mark.parametrize(
    "words", ["cluster.container=[apptainer,exec,i.sif]", "cluster.srun_flags=['--container-image=i.sqsh']"]
)
def test_a_container_runs_its_own_python_and_packages(words: str):
    lines = script(words).splitlines()
    assert not [line for line in lines if sys.executable in line or line.startswith("export PYTHONPATH")]
    assert any("python -m launch.clusters.node" in line for line in lines)
    assert any("/opt/python -m launch" in line for line in script(words, "cluster.python=/opt/python").splitlines())


def test_the_port_is_one_that_nothing_uses():
    text = script()
    functions = text[text.index("is_taken() {") : text.index("SHARDREC_JOB_SECRET=")]
    ports = [int(word) for word in bash(f"{functions}\nfor _ in {{1..20}}; do free_port; done").stdout.split()]
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert len(ports) == 20
    assert all(1024 < port < 65536 and (low <= 16000 or not low <= port <= high) for port in ports)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert bash(f"{functions}\nis_taken {port}").returncode == 0
    assert bash(f"{functions}\nis_taken {port}").returncode == 1


def bash(words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)


def test_what_a_failed_launch_has_made_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Slurm's stand-in checks the script and then refuses to queue it."""
    tree = tmp_path / "tree"
    (tree / "old").mkdir(parents=True)
    (tree / "old" / "mine.txt").write_text("kept")
    before = sorted(tree.rglob("*"))
    (tmp_path / "bin").mkdir()
    programs = Programs(tmp_path / "bin", monkeypatch)
    for refused in ("--test-only", "--parsable"):
        programs.put("sbatch", f'[ "$1" = {refused} ] && {{ echo "refused" >&2; exit 1; }}; cat >/dev/null; exit 0')
        for run_dir in (tree / "new" / "run", tree / "old"):
            with pytest.raises(ConfigError, match="refused"):
                launch(["cluster=slurm", f"run_dir={run_dir}", "data.store=s"])
            assert sorted(tree.rglob("*")) == before


def test_the_script_can_be_read_by_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bin").mkdir()
    programs = Programs(tmp_path / "bin", monkeypatch)
    programs.put("sbatch", '[ "$1" = --parsable ] && echo 7; exit 0')
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "job.sbatch").write_text("of an older version")
    words = [
        "cluster=slurm",
        "cluster.follow=false",
        "cluster.environment=['A=b']",
        f"run_dir={run_dir}",
        "data.store=s",
    ]
    assert launch(words) == 0
    assert (run_dir / "job.sbatch").stat().st_mode & 0o777 == 0o600
    assert "export A=b" in (run_dir / "job.sbatch").read_text()


def test_a_script_that_evaluates_is_another_file_and_never_queues_itself_again():
    text = script(verb=EVALUATE, folder=Path("runs/x"))
    assert "--verb=evaluate" in text
    assert "saves_when_stopped=false" in text
    assert any(line.endswith("evaluate-slurm-%j.log") for line in text.splitlines())


def test_files_made_are_taken_back_but_not_what_others_put_there(tmp_path: Path):
    made = FilesMade()
    made.write(tmp_path / "a" / "b" / "file", "x")
    (tmp_path / "a" / "other").write_text("not ours")
    made.undo()
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["other"]


def test_a_sweep_is_every_combination_in_a_folder_of_its_own():
    runs = sweep(["seed=1,2", "model.dropout=0.1,0.2", "run_dir=runs/s"])
    assert [run[:2] for run in runs] == [
        [f"seed={seed}", f"model.dropout={rate}"] for seed in (1, 2) for rate in ("0.1", "0.2")
    ]
    assert [run[2] for run in runs] == [f"run_dir=runs/s/{number}" for number in range(4)]


def test_a_sweep_of_one_is_the_run_itself():
    assert sweep(["seed=1", "run_dir=runs/s"]) == [["seed=1", "run_dir=runs/s"]]


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
        (["cluster=torchrun", "cluster.endpoint=a:99999"], "99999"),
        (["cluster=torchrun", "cluster.endpoint=a:0"], "port 0"),
        (["cluster=torchrun", "cluster.endpoint=fe80::1:29500"], "brackets"),
        (["cluster=torchrun", "cluster.endpoint=a"], "HOST:PORT"),
        (["inspect", "run_dir=r"], "inspect cannot be launched"),
        (["evaluate", "-m", "run_dir=a,b"], "launch evaluate"),
        (["evaluate", "run_dir=no/such/run"], "holds no run"),
        (["cluster=torchrun", "cluster.endpoint=a:1", "cluster.nodes=2", "cluster.node=2"], "cluster.node=2"),
        (["cluster=torchrun", "cluster.endpoint=a:1", "-m", "seed=1,2"], "--multirun"),
        (["cluster=kubernetes"], "cluster.image"),
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
