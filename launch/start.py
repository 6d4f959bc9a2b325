"""``shardrec launch``: composes the cluster and the run, or the runs of a sweep, and starts them there."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError
from configs.load import left_to_the_machine, load_cluster, load_config, load_pinned, split_overrides
from configs.overrides import as_typed
from configs.schema import RunConfig
from configs.schema.cluster import ClusterConfig, KubernetesConfig, LocalConfig, SlurmConfig, TorchrunConfig
from configs.sweeps import swept
from configs.url import is_url
from launch.clusters.kubernetes import manifest_of
from launch.clusters.local import train_locally
from launch.clusters.slurm import Run, script_of, submit
from launch.clusters.slurm_follow import follow
from launch.clusters.torchrun import commands_of, run_this_node
from launch.command import run_module

FLAGS = {"-m": "multirun", "--multirun": "multirun", "--dry-run": "dry run"}


def launch(words: Sequence[str]) -> int:
    """Start what ``words`` (overrides, ``--multirun``, ``--dry-run``) say; the exit code.

    Everything is composed and checked before anything is written, queued or started.
    """
    flags = {FLAGS[word] for word in words if word in FLAGS}
    overrides = [word for word in words if word not in FLAGS]
    if unknown := [word for word in overrides if word.startswith("-")]:
        raise ConfigError(f"{unknown[0]} is no flag of launch; it has {', '.join(FLAGS)}")
    of_cluster, of_run = split_overrides(overrides)
    cluster, words_of_runs = load_cluster(of_cluster), sweep(of_run) if "multirun" in flags else [of_run]
    runs = [_run_of(cluster, words) for words in words_of_runs]
    config, is_dry = runs[0].config, "dry run" in flags
    if not isinstance(cluster, LocalConfig):
        _refuse_url(config, cluster)
    match cluster:
        case SlurmConfig():
            return _slurm(cluster, runs, ["shardrec", "launch", *words], is_dry)
        case TorchrunConfig() | KubernetesConfig() if len(runs) > 1:
            raise ConfigError(f"--multirun needs cluster=slurm or cluster=local, not cluster={cluster.name}")
        case TorchrunConfig():
            return _torchrun(cluster, config, runs[0].overrides, is_dry)
        case KubernetesConfig():
            return _kubernetes(cluster, config, runs[0].overrides, is_dry)
    return _local(cluster, runs, is_dry)


def _run_of(cluster: ClusterConfig, words: list[str]) -> Run:
    """The run of ``words``, with what was left to the machine; that of another machine is asked of its cluster."""
    if not isinstance(cluster, LocalConfig):
        theirs = machine_of(cluster)
        words = [*words, *(f"{key}={theirs[key]}" for key in left_to_the_machine(words))]
    config, pinned = load_pinned(words, machine=True)
    return Run(config=config, overrides=pinned)


def machine_of(cluster: ClusterConfig) -> dict[str, str]:
    """What a job gets that leaves it to ``cluster``: a rank for each GPU that it asks for, else one a node."""
    gpus, cores = 0, 0
    match cluster:
        case SlurmConfig():
            gpus, cores = int((re.findall(r"\d+$", cluster.gpus_per_node) or ["0"])[0]), cluster.cpus_per_rank
        case KubernetesConfig():
            gpus = max(cluster.gpus_per_node, 0)
            cores = cluster.cpus_per_node // max(gpus, 1)
    return {
        "hardware.device": "cuda" if gpus else "cpu",
        "hardware.num_ranks": str(cluster.nodes * max(gpus, 1)),
        "hardware.num_threads": str(max(cores, 1)),
        "data.memory_gib": "2",
    }


def _refuse_url(config: RunConfig, cluster: ClusterConfig) -> None:
    """Scripts, logs and marks of the cluster's jobs lie in the run folder, which every node sees."""
    if is_url(config.run_dir):
        raise ConfigError(
            f"run_dir={config.run_dir} is a URL, which cluster={cluster.name} does not take: name a folder that "
            f"every node mounts, or start `shardrec train` on one machine (docs/object_stores.md)"
        )


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The runs of Hydra's sweep syntax (``seed=1,2``): every combination, each in ``run_dir/NUMBER`` of its own."""
    runs = swept(overrides)
    if len(runs) == 1:
        return runs
    folder = load_config(runs[0]).run_dir
    return [
        [*_without(run, "run_dir"), f"run_dir={as_typed(f'{folder}/{number}')}"] for number, run in enumerate(runs)
    ]


def _without(overrides: list[str], key: str) -> list[str]:
    return [each for each in overrides if each.partition("=")[0] != key]


def _slurm(cluster: SlurmConfig, runs: list[Run], command: list[str], is_dry: bool) -> int:
    first = Path(runs[0].config.run_dir)
    folder = first if len(runs) == 1 else first.parent
    if is_dry:
        print(script_of(cluster, runs, folder, command), end="")
        return 0
    for run in runs:
        if code := _refused(run):
            return code
    job = submit(cluster, runs, folder, command)
    print(f"job {job} is queued: {folder / 'job.sbatch'}", file=sys.stderr, flush=True)
    return follow(job, folder / "logs") if cluster.follow else 0


def _refused(run: Run) -> int:
    """The exit code where the run's folder is of another run; what is not there yet is found by the job."""
    is_known = (Path(run.config.run_dir) / "identity.json").is_file()
    has_store = (Path(run.config.data.store) / "manifest.json").is_file()
    return run_module("train.preflight", run.overrides) if is_known and has_store else 0


def _torchrun(cluster: TorchrunConfig, config: RunConfig, overrides: list[str], is_dry: bool) -> int:
    if cluster.node >= 0 and not is_dry:
        os.environ.update(cluster.variables)
        return run_this_node(cluster, config, overrides)
    for node, line in enumerate(commands_of(cluster, config, overrides)):
        print(f"# node {node}\n{line}")
    return 0


def _kubernetes(cluster: KubernetesConfig, config: RunConfig, overrides: list[str], is_dry: bool) -> int:
    if not is_dry:
        raise ConfigError("cluster=kubernetes prints a manifest: add --dry-run, and pipe it to `kubectl apply -f -`")
    print(manifest_of(cluster, config, overrides), end="")
    return 0


def _local(cluster: ClusterConfig, runs: list[Run], is_dry: bool) -> int:
    os.environ.update(cluster.variables)
    for run in runs:
        if is_dry:
            print(f"{run.config.run_dir}: {shlex.join(run.overrides)}")
        elif code := train_locally(run.config, run.overrides, max_restarts=cluster.max_restarts):
            return code
    return 0
