"""Where a run is started: every key of ``cluster`` with its default and its bounds. Never part of a run."""

import re
from dataclasses import dataclass, field

from configs.endpoint import split_endpoint
from configs.errors import ConfigError, require

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\n\r\0]*")
_JOB_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_TIME_LIMIT = re.compile(r"\d+|\d+:\d+|\d+:\d+:\d+|\d+-\d+(:\d+(:\d+)?)?|unlimited|infinite", re.IGNORECASE)
_ONE_LINE = re.compile(r"[^\n\r\0]*")


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    """The machines of a job; ``hardware.num_ranks`` are shared out evenly over its nodes."""

    name: str = "local"
    """Name of the kind of cluster."""
    nodes: int = 1
    """Machines of the job, which share ``hardware.num_ranks`` evenly."""
    min_nodes: int = 0
    """An elastic job continues with this many nodes; 0: it needs all of them."""
    max_restarts: int = 0
    """Times that failed ranks are started again from the last checkpoint."""
    rendezvous_timeout_s: int = 600
    """Seconds within which all nodes must meet, once node 0 has prepared the store."""
    bind_ranks: str = "none"
    """Processors that each rank is pinned to: none | cores (an equal share) | numa (those near its GPU)."""
    environment: list[str] = field(default_factory=list)
    """``NAME=value``, set on every node; values are never shown."""

    def __post_init__(self) -> None:
        for name in ("nodes", "rendezvous_timeout_s"):
            require(getattr(self, name) >= 1, f"cluster.{name}={getattr(self, name)} must be at least 1")
        for name in ("min_nodes", "max_restarts"):
            require(getattr(self, name) >= 0, f"cluster.{name}={getattr(self, name)} must not be negative")
        require(
            self.min_nodes <= self.nodes,
            f"cluster.min_nodes={self.min_nodes} is more than cluster.nodes={self.nodes}",
        )
        for entry in self.environment:
            is_variable = bool(_VARIABLE.fullmatch(entry))
            name = entry.partition("=")[0]  # without the value, which may be a secret
            require(is_variable, f"cluster.environment: {name!r} must be NAME=value, on one line")
        require(
            self.bind_ranks in ("none", "cores", "numa"),
            f"cluster.bind_ranks={self.bind_ranks} is unknown; set it to none, cores or numa",
        )

    @property
    def variables(self) -> dict[str, str]:
        """``environment`` by name."""
        return pairs_of(self.environment)

    @property
    def fewest_nodes(self) -> int:
        """Nodes without which the job does not go on."""
        return self.min_nodes or self.nodes


@dataclass(kw_only=True, slots=True)
class LocalConfig(ClusterConfig):
    """This machine."""

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)
        require(self.nodes == 1, f"cluster.nodes={self.nodes}: cluster=local is one machine; use torchrun or slurm")


@dataclass(kw_only=True, slots=True)
class TorchrunConfig(ClusterConfig):
    """Machines on which somebody starts the same command."""

    name: str = "torchrun"
    endpoint: str = ""
    """``HOST:PORT`` on node 0, reached from all."""
    node: int = -1
    """Start this machine as that node; -1: print the command of each."""

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)
        try:
            split_endpoint(self.endpoint)
        except ValueError as error:
            raise ConfigError(f"cluster.endpoint={self.endpoint!r}: {error}") from error
        require(
            -1 <= self.node < self.nodes,
            f"cluster.node={self.node} must lie in 0 to {self.nodes - 1}, the nodes of this job (-1: print commands)",
        )


@dataclass(kw_only=True, slots=True)
class SlurmConfig(ClusterConfig):
    """A job of Slurm; what is empty or 0 is left to the cluster's own default."""

    name: str = "slurm"
    job_name: str = ""
    """Name of the job; empty: the name of the run's folder."""
    partition: str = ""
    """Partition of the job."""
    account: str = ""
    """Account that pays for the job."""
    qos: str = ""
    """Quality of service of the job."""
    constraint: str = ""
    """Features that the nodes must have."""
    time_limit: str = ""
    """Such as ``12:00:00`` or ``UNLIMITED``; before it, and when preempted, the run saves and queues itself again."""
    exclusive: bool = False
    """Share the nodes with no other job."""
    cpus_per_rank: int = 0
    """Processors of each rank; 0: ``hardware.num_threads``."""
    memory_gib_per_node: int = 0
    """GiB of memory on each node; 0: the partition's default."""
    gpus_per_node: str = ""
    """Such as ``h100:8``; empty: one a rank with ``hardware.device=cuda``, else none."""
    save_before_end_s: int = 120
    """Seconds before the time limit at which the run saves and queues itself again."""
    max_requeues: int = 100
    """Times that a run may queue itself again."""
    max_parallel: int = 0
    """Jobs of a sweep that may run at once; 0: all."""
    modules: list[str] = field(default_factory=list)
    """Names for ``module load``; one that fails ends the job."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the ranks start, as they are; quoting is yours. One that fails ends the job."""
    container: list[str] = field(default_factory=list)
    """Words in front of the command on every node, such as ``[apptainer,exec,--nv,image.sif]``."""
    sbatch_flags: list[str] = field(default_factory=list)
    """Further ``#SBATCH`` lines, such as ``--mail-type=END``."""
    srun_flags: list[str] = field(default_factory=list)
    """Further flags of srun, such as ``--container-image=image.sqsh``."""
    python: str = ""
    """Python on the nodes; empty: the one that runs this command, or ``python`` of the container."""
    follow: bool = True
    """Show the job's state and log until it ends; Ctrl-C stops showing, never the job."""

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)
        require(
            not self.job_name or bool(_JOB_NAME.fullmatch(self.job_name)),
            f"cluster.job_name={self.job_name!r} must be letters, digits, '.', '_' and '-', at most 63",
        )
        for name in ("partition", "account", "qos", "constraint", "gpus_per_node"):
            value = getattr(self, name)
            is_one_word = bool(_ONE_LINE.fullmatch(value)) and not re.search(r"\s", value)
            require(is_one_word and not value.startswith("-"), f"cluster.{name}={value!r} must be one word")
        require(
            not self.time_limit or bool(_TIME_LIMIT.fullmatch(self.time_limit)),
            f"cluster.time_limit={self.time_limit!r} must be MINUTES, HH:MM:SS, D-HH:MM:SS or UNLIMITED",
        )
        for name in ("sbatch_flags", "srun_flags"):
            for flag in getattr(self, name):
                is_flag = bool(re.fullmatch(r"--?[A-Za-z][A-Za-z0-9-]*(=[^\n\r\0]*)?", flag))
                require(is_flag, f"cluster.{name}: {flag!r} must be one flag, such as --mail-type=END")
        for name in ("modules", "setup", "container"):
            for line in getattr(self, name):
                require(bool(_ONE_LINE.fullmatch(line)), f"cluster.{name}: {line!r} must be one line")
        for name in ("cpus_per_rank", "memory_gib_per_node", "save_before_end_s", "max_requeues", "max_parallel"):
            require(getattr(self, name) >= 0, f"cluster.{name}={getattr(self, name)} must not be negative")


def pairs_of(entries: list[str]) -> dict[str, str]:
    """``["NAME=value", ...]`` by name."""
    return dict(entry.split("=", 1) for entry in entries)


@dataclass(kw_only=True, slots=True)
class LaunchConfig:
    """What ``configs/launch.yaml`` composes."""

    config_dir: str = ""
    """Folder of your own YAML files, as for a run."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """The machines: where the job is started."""
