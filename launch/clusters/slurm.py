"""``cluster=slurm``: a readable batch script, checked by Slurm before it is queued, that queues itself again."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from configs.errors import ConfigError
from configs.schema import RunConfig
from configs.schema.cluster import SlurmConfig
from launch.clusters.node import flags_of, ranks_per_node
from launch.command import module_environment

TEMPLATE = Path(__file__).parent / "templates" / "job.sbatch"
JOB = "job.json"
"""In a run's folder: which job of Slurm it is."""


@dataclass(kw_only=True, slots=True)
class Run:
    """One run of a job; a sweep has several."""

    config: RunConfig
    overrides: list[str]


class ForgottenJob(ConfigError):
    """Slurm knows the job no more, some minutes after its end."""


class _Script(Template):
    delimiter = "@@"


def script_of(cluster: SlurmConfig, runs: list[Run], folder: Path, command: list[str]) -> str:
    """The batch script of ``runs``, as an array where there are several; logs go to ``folder/logs``."""
    config = runs[0].config
    for run in runs:
        ranks_per_node(run.config, cluster.nodes)
    return _Script(TEMPLATE.read_text()).substitute(
        directives="\n".join(f"#SBATCH {flag}" for flag in _directives(cluster, config, len(runs), folder)),
        command=shlex.join(command),
        environment="\n".join(
            f"export {name}={shlex.quote(value)}" for name, value in _environment(cluster, config).items()
        ),
        setup="".join(f"{line}\n" for line in _setup(cluster)),
        runs="\n".join(_case(number, run) for number, run in enumerate(runs)),
        container=f"{shlex.join(cluster.container)} " if cluster.container else "",
        python=shlex.quote(cluster.python or sys.executable),
        srun_flags="".join(f"{shlex.quote(flag)} " for flag in cluster.srun_flags),
        node_flags=shlex.join(flags_of(cluster)),
        max_requeues=cluster.max_requeues,
        save_before_end_s=_warned_before_end_s(cluster),
    )


def submit(cluster: SlurmConfig, runs: list[Run], folder: Path, command: list[str]) -> str:
    """Write the script to ``folder``, have Slurm check it, queue it; returns the id of the job.

    Raises :class:`ConfigError` where Slurm refuses the job, and where a job of one of the runs is still queued.
    """
    script = script_of(cluster, runs, folder, command)
    for run in runs:
        _refuse_running_job(Path(run.config.run_dir))
    path = folder / "job.sbatch"
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        path.write_text(script)
    except OSError as error:
        raise ConfigError(f"run_dir={folder} cannot be written: {error.strerror}; choose another") from error
    slurm("sbatch", "--test-only", str(path))
    job = slurm("sbatch", "--parsable", str(path)).split(";")[0]
    for number, run in enumerate(runs):
        run_dir = Path(run.config.run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / JOB).write_text(json.dumps({"job_id": job if len(runs) == 1 else f"{job}_{number}"}) + "\n")
    return job


def slurm(*command: str) -> str:
    """What one of Slurm's commands prints; :class:`ConfigError` with its words where it fails, :class:`ForgottenJob`
    where it knows the job no more."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError as error:
        raise ConfigError(
            f"cluster=slurm needs {command[0]} on this machine; run the command on a login node of the cluster"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{command[0]} has not answered for {error.timeout:.0f} s; is Slurm up? (sinfo)") from error
    if done.returncode:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        kind = ForgottenJob if "Invalid job id" in words else ConfigError
        raise kind(f"{shlex.join(command)}: {words}; look at cluster.* (shardrec launch --help)")
    return done.stdout.strip()


def job_name(cluster: SlurmConfig, folder: Path) -> str:
    """``cluster.job_name``, or the folder's name with what Slurm's tools trip over left out."""
    return cluster.job_name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-.")[:63] or "shardrec"


def _warned_before_end_s(cluster: SlurmConfig) -> int:
    """At most half of a short limit, so that there is time to train."""
    limit = time_limit_s(cluster.time_limit) if cluster.time_limit else 2 * cluster.save_before_end_s
    return min(cluster.save_before_end_s, limit // 2)


def time_limit_s(limit: str) -> int:
    """Seconds of Slurm's ``MINUTES``, ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM`` and ``D-HH:MM:SS``."""
    days, dash, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, minutes, seconds = [0, *parts, 0][:3] if len(parts) < 3 else parts
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _directives(cluster: SlurmConfig, config: RunConfig, num_runs: int, folder: Path) -> list[str]:
    per_node = ranks_per_node(config, cluster.nodes)
    flags = {
        "job-name": job_name(cluster, folder),
        "nodes": cluster.nodes
        if cluster.fewest_nodes == cluster.nodes
        else f"{cluster.fewest_nodes}-{cluster.nodes}",
        "ntasks-per-node": 1,
        "cpus-per-task": per_node * (cluster.cpus_per_rank or config.hardware.num_threads),
        "mem": f"{cluster.memory_gib_per_node}G" if cluster.memory_gib_per_node else "",
        "gpus-per-node": cluster.gpus_per_node or (per_node if config.hardware.device == "cuda" else ""),
        "time": cluster.time_limit,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "signal": f"B:USR1@{_warned_before_end_s(cluster)}",
        "chdir": Path.cwd(),
        "output": (folder / "logs" / ("slurm-%j.log" if num_runs == 1 else "slurm-%A_%a.log")).absolute(),
        "open-mode": "append",
        "array": f"0-{num_runs - 1}" + (f"%{cluster.max_parallel}" if cluster.max_parallel else ""),
    }
    if num_runs == 1:
        del flags["array"]
    given = [f"--{name}={shlex.quote(str(value))}" for name, value in flags.items() if value != ""]
    exclusive = ["--exclusive"] if cluster.exclusive else []
    return [*given, "--requeue", *exclusive, *(_quoted_flag(flag) for flag in cluster.sbatch_flags)]


def _quoted_flag(flag: str) -> str:
    name, equals, value = flag.partition("=")
    return f"{name}{equals}{shlex.quote(value)}" if equals else name


def _environment(cluster: SlurmConfig, config: RunConfig) -> dict[str, str]:
    ours = module_environment({"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    return ours | {"OMP_NUM_THREADS": str(config.hardware.num_threads)} | cluster.variables


def _setup(cluster: SlurmConfig) -> list[str]:
    return [*(f"module load {shlex.quote(module)}" for module in cluster.modules), *cluster.setup]


def _case(number: int, run: Run) -> str:
    return f"  {number}) run_dir={shlex.quote(run.config.run_dir)}\n     overrides=({shlex.join(run.overrides)}) ;;"


def _refuse_running_job(run_dir: Path) -> None:
    path = run_dir / JOB
    if not path.is_file():
        return
    job = str(json.loads(path.read_text())["job_id"])
    try:
        state = slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T")
    except ForgottenJob:
        return
    if state:
        raise ConfigError(
            f"run_dir={run_dir} belongs to job {job}, which is {state}; wait for it, or `scancel {job}` first"
        )
