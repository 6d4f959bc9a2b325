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
from configs.schema.cluster import ClusterConfig, LocalConfig, SlurmConfig, TorchrunConfig
from configs.schema.kubernetes import KubernetesConfig
from configs.sweeps import swept
from configs.url import is_url
from launch.clusters.kubernetes import manifest_of
from launch.clusters.local import run_ranks, train_locally
from launch.clusters.node import bind_ranks
from launch.clusters.slurm import Job, Run, script_of, submit
from launch.clusters.slurm_follow import follow
from launch.clusters.torchrun import commands_of, run_this_node
from launch.command import run_module
from launch.verbs import TRAIN, Verb, compose, verb_of

FLAGS = {"-m": "multirun", "--multirun": "multirun", "--dry-run": "dry run"}


def launch(words: Sequence[str]) -> int:
    """Start what ``words`` (a verb, by default train, overrides, ``--multirun``, ``--dry-run``) say; the exit code.

    Everything is composed and checked before anything is written, queued or started.
    """
    verb, others = verb_of([word for word in words if word not in FLAGS])
    flags = {FLAGS[word] for word in words if word in FLAGS}
    if unknown := [word for word in others if word.startswith("-")]:
        raise ConfigError(f"{unknown[0]} is no flag of launch; it has {', '.join(FLAGS)}")
    of_cluster, of_run = split_overrides(others)
    if "multirun" in flags and verb is not TRAIN:
        raise ConfigError(f"--multirun starts several runs; `launch {verb.name}` works on one, run_dir=RUN_DIR")
    cluster, words_of_runs = load_cluster(of_cluster), sweep(of_run) if "multirun" in flags else [of_run]
    runs = [_run_of(cluster, verb, words) for words in words_of_runs]
    config, is_dry = runs[0].config, "dry run" in flags
    if not isinstance(cluster, LocalConfig):
        _refuse_url(config, cluster)
    match cluster:
        case SlurmConfig():
            first = Path(config.run_dir)
            folder = first if len(runs) == 1 else first.parent
            command = ["shardrec", "launch", *words]
            return _slurm(Job(cluster=cluster, verb=verb, runs=runs, folder=folder, command=command), is_dry)
        case TorchrunConfig() | KubernetesConfig() if len(runs) > 1:
            raise ConfigError(f"--multirun needs cluster=slurm or cluster=local, not cluster={cluster.name}")
        case TorchrunConfig():
            return _torchrun(cluster, verb, config, runs[0].overrides, is_dry)
        case KubernetesConfig():
            return _kubernetes(cluster, verb, config, runs[0].overrides, is_dry)
    return _local(cluster, verb, runs, is_dry)


def _run_of(cluster: ClusterConfig, verb: Verb, words: list[str]) -> Run:
    """The run of ``words``, with what was left to the machine; that of another machine is asked of its cluster."""
    if verb is not TRAIN:
        config, pinned = compose(verb, words)
        return Run(config=config, overrides=pinned)
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


def _slurm(job: Job, is_dry: bool) -> int:
    if is_dry:
        print(script_of(job, is_shown=True), end="")
        return 0
    if job.verb is TRAIN:
        for run in job.runs:
            if code := _refused(run):
                return code
    name = submit(job)
    print(f"job {name} is queued: {job.script}", file=sys.stderr, flush=True)
    if not job.cluster.follow:
        return 0
    try:
        return follow(name, job.folder / "logs", job.log_name)
    except ConfigError:
        job.made.undo()  # the job was taken back: it could never have started
        raise


def _refused(run: Run) -> int:
    """The exit code where the run's folder is of another run; what is not there yet is found by the job."""
    is_known = (Path(run.config.run_dir) / "identity.json").is_file()
    has_store = (Path(run.config.data.store) / "manifest.json").is_file()
    return run_module("train.preflight", run.overrides) if is_known and has_store else 0


def _torchrun(cluster: TorchrunConfig, verb: Verb, config: RunConfig, overrides: list[str], is_dry: bool) -> int:
    if cluster.node >= 0 and not is_dry:
        os.environ.update(cluster.variables)
        return run_this_node(cluster, verb, config, overrides)
    for node, line in enumerate(commands_of(cluster, verb, config, overrides)):
        print(f"# node {node}\n{line}")
    return 0


def _kubernetes(cluster: KubernetesConfig, verb: Verb, config: RunConfig, overrides: list[str], is_dry: bool) -> int:
    if not is_dry:
        raise ConfigError("cluster=kubernetes prints a manifest: add --dry-run, and pipe it to `kubectl apply -f -`")
    print(manifest_of(cluster, verb, config, overrides), end="")
    return 0


def _local(cluster: ClusterConfig, verb: Verb, runs: list[Run], is_dry: bool) -> int:
    os.environ.update(cluster.variables)
    bind_ranks(cluster.bind_ranks)
    for run in runs:
        if is_dry:
            print(f"{verb.name} {run.config.run_dir}: {shlex.join(run.overrides)}")
        elif code := _here(verb, run, cluster.max_restarts):
            return code
    return 0


def _here(verb: Verb, run: Run, max_restarts: int) -> int:
    if verb is TRAIN:
        return train_locally(run.config, run.overrides, max_restarts=max_restarts)
    return run_ranks(verb.module, run.config, run.overrides, max_restarts=max_restarts)
