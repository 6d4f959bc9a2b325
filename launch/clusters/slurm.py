"""``cluster=slurm``: a readable batch script, checked by Slurm before it is queued, that queues itself again."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from configs.errors import ConfigError
from configs.process_environment import module_environment
from configs.schema import RunConfig
from configs.schema.cluster import SlurmConfig
from launch.clusters.node import flags_of, ranks_per_node
from launch.verbs import Verb

TEMPLATE = Path(__file__).parent / "templates" / "job.sbatch"
HIDDEN = "***"
"""In the place of a value that may be a secret."""


@dataclass(kw_only=True, slots=True)
class Run:
    """One run of a job; a sweep has several."""

    config: RunConfig
    overrides: list[str]


@dataclass(kw_only=True, slots=True)
class Job:
    """What is queued at once; ``command`` is what the user typed."""

    cluster: SlurmConfig
    verb: Verb
    runs: list[Run]
    folder: Path
    command: list[str]
    made: "FilesMade" = field(default_factory=lambda: FilesMade())
    """What :func:`submit` has made."""

    @property
    def script(self) -> Path:
        """Where the batch script is written."""
        return self.folder / f"{self.verb.log_prefix}job.sbatch"

    @property
    def log_name(self) -> str:
        """What the names of the job's logs begin with."""
        return f"{self.verb.log_prefix}slurm-"


class FilesMade:
    """Files and folders that were made, so that a launch that fails can take them back."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def folder(self, path: Path) -> None:
        """Make the folder and those above it that are missing."""
        missing = [each for each in (path, *path.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            self._made.append(each)

    def write(self, path: Path, text: str, *, mode: int = 0o644) -> None:
        """Write a file that nobody but its owner may read where ``mode`` says so, also where it was there before."""
        self.folder(path.parent)
        is_new = not path.exists()
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, mode), "w") as file:
            if mode == 0o600:
                os.fchmod(file.fileno(), mode)
            file.truncate()
            file.write(text)
        if is_new:
            self._made.append(path)

    def undo(self) -> None:
        """Remove what was made; a folder in which something else lies by now stays."""
        for path in reversed(self._made):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)
        self._made.clear()


class ForgottenJob(ConfigError):
    """Slurm knows the job no more, some minutes after its end."""


class _Script(Template):
    delimiter = "@@"


def script_of(job: Job, *, is_shown: bool = False) -> str:
    """The batch script of ``job``, an array where it has several runs; logs go to ``job.folder/logs``.

    ``is_shown``: without the values of ``cluster.environment``, which may be secrets.
    """
    cluster, config = job.cluster, job.runs[0].config
    for run in job.runs:
        ranks_per_node(run.config, cluster.nodes)
    exports = _environment(cluster, config) | cluster.variables
    if is_shown:
        exports |= dict.fromkeys(cluster.variables, HIDDEN)
    return _Script(TEMPLATE.read_text()).substitute(
        directives="\n".join(f"#SBATCH {flag}" for flag in _directives(job)),
        command=shlex.join(_without_values(cluster, job.command)),
        environment="\n".join(f"export {name}={shlex.quote(value)}" for name, value in exports.items()),
        setup="".join(f"{line}\n" for line in _setup(cluster)),
        runs="\n".join(_case(number, run) for number, run in enumerate(job.runs)),
        container=f"{shlex.join(cluster.container)} " if cluster.container else "",
        python=shlex.quote(cluster.python or ("python" if _has_container(cluster) else sys.executable)),
        srun_flags="".join(f"{shlex.quote(flag)} " for flag in cluster.srun_flags),
        node_flags=shlex.join([*flags_of(cluster), f"--verb={job.verb.name}"]),
        saves_when_stopped=str(job.verb.saves_when_stopped).lower(),
        max_requeues=cluster.max_requeues,
        save_before_end_s=_warned_before_end_s(cluster),
    )


def submit(job: Job) -> str:
    """Have Slurm check the script, write it to the job's folder and queue it; returns the id of the job.

    Raises :class:`ConfigError` where Slurm refuses the job, and where a job of one of the runs is still queued: then
    nothing is left behind.
    """
    script = script_of(job)
    for run in job.runs:
        _refuse_running_job(Path(run.config.run_dir), job.verb)
    slurm("sbatch", "--test-only", text=script)
    made = FilesMade()
    try:
        made.write(job.script, script, mode=0o600)  # it may hold secrets
        made.folder(job.folder / "logs")
        name = slurm("sbatch", "--parsable", str(job.script)).split(";")[0]
        for number, run in enumerate(job.runs):
            told = {"job_id": name if len(job.runs) == 1 else f"{name}_{number}"}
            made.write(Path(run.config.run_dir) / _record_of(job.verb), json.dumps(told) + "\n")
    except OSError as error:
        made.undo()
        raise ConfigError(f"run_dir={job.folder} cannot be written: {error.strerror}; choose another") from error
    except ConfigError:
        made.undo()
        raise
    job.made = made
    return name


def slurm(*command: str, text: str | None = None) -> str:
    """What one of Slurm's commands, which reads ``text``, prints.

    Raises :class:`ConfigError` with its words where it fails, :class:`ForgottenJob` where it knows the job no more.
    """
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
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
    limit = time_limit_s(cluster.time_limit) if cluster.time_limit else None
    return cluster.save_before_end_s if limit is None else min(cluster.save_before_end_s, limit // 2)


def time_limit_s(limit: str) -> int | None:
    """Seconds of Slurm's ``MINUTES``, ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM`` and ``D-HH:MM:SS``; None for no
    limit, which is what Slurm takes 0 for."""
    if limit.lower() in ("unlimited", "infinite"):
        return None
    days, dash, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, minutes, seconds = [0, *parts, 0][:3] if len(parts) < 3 else parts
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds or None


def _directives(job: Job) -> list[str]:
    cluster, config, num_runs = job.cluster, job.runs[0].config, len(job.runs)
    per_node = ranks_per_node(config, cluster.nodes)
    flags = {
        "job-name": job_name(cluster, job.folder),
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
        "output": _log_pattern(job),
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


def _log_pattern(job: Job) -> str:
    """Where Slurm writes the log; a % of the folder's own name is no pattern of Slurm's."""
    folder = str((job.folder / "logs").absolute()).replace("%", "%%")
    return f"{folder}/{job.log_name}{'%j' if len(job.runs) == 1 else '%A_%a'}.log"


def _has_container(cluster: SlurmConfig) -> bool:
    return bool(cluster.container) or any(flag.startswith("--container-image") for flag in cluster.srun_flags)


def _environment(cluster: SlurmConfig, config: RunConfig) -> dict[str, str]:
    """A container has packages of its own: our folder on this machine's disk is nothing to it."""
    ours = module_environment({"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    if _has_container(cluster):
        del ours["PYTHONPATH"]
    return ours | {"OMP_NUM_THREADS": str(config.hardware.num_threads)}


def _without_values(cluster: SlurmConfig, command: list[str]) -> list[str]:
    """``command`` with the names alone of ``cluster.environment``, whose values may be secrets."""
    hidden = f"cluster.environment=[{','.join(f'{name}={HIDDEN}' for name in cluster.variables)}]"
    return [hidden if word.startswith("cluster.environment=") else word for word in command]


def _setup(cluster: SlurmConfig) -> list[str]:
    """A line that fails ends the job; of a construct over several lines, its end says whether it did."""
    lines = [f"module load {shlex.quote(module)}" for module in cluster.modules] + cluster.setup
    has_text = any("<<" in line for line in lines)  # a line within a here-document is no command
    checked = []
    for number, line in enumerate(lines, start=1):
        is_end = number == len(lines)
        checked.append(line)
        if is_end or (not has_text and _stands_alone(line)):
            checked.append(f"check $? {shlex.quote(line)}")
    return checked


def _stands_alone(line: str) -> bool:
    """Whether ``line`` is a command of its own rather than a part of one."""
    if line.rstrip().endswith("\\"):
        return False
    try:
        return subprocess.run(["bash", "-n", "-c", line], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _case(number: int, run: Run) -> str:
    return f"  {number}) run_dir={shlex.quote(run.config.run_dir)}\n     overrides=({shlex.join(run.overrides)}) ;;"


def _record_of(verb: Verb) -> str:
    """In a run's folder: which job of Slurm it is."""
    return f"{verb.log_prefix}job.json"


def _refuse_running_job(run_dir: Path, verb: Verb) -> None:
    path = run_dir / _record_of(verb)
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
