"""Where a run is started: every key of ``cluster`` with its default and its bounds. Never part of a run."""

import re
from dataclasses import dataclass, field

from configs.errors import require

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[^\n\r\0]*")
_JOB_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_KUBERNETES_NAME = re.compile(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?")
_ENDPOINT = re.compile(r"[A-Za-z0-9._-]+:[0-9]{1,5}")
_TIME_LIMIT = re.compile(r"\d+|\d+:\d+|\d+:\d+:\d+|\d+-\d+(:\d+(:\d+)?)?")
_ONE_LINE = re.compile(r"[^\n\r\0]*")


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    """The machines of a job; ``hardware.num_ranks`` are shared out evenly over its nodes."""

    name: str = "local"
    nodes: int = 1
    min_nodes: int = 0
    """An elastic job goes on with so many; 0: all of ``nodes`` are needed."""
    max_restarts: int = 0
    """So often the ranks are started again, from the last checkpoint, after one has failed."""
    rendezvous_timeout_s: int = 60
    environment: list[str] = field(default_factory=list)
    """``NAME=value``, set on every node."""

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
            require(is_variable, f"cluster.environment: {entry!r} must be NAME=value, on one line")

    @property
    def variables(self) -> dict[str, str]:
        """``environment`` by name."""
        return _pairs(self.environment)

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
        require(
            bool(_ENDPOINT.fullmatch(self.endpoint)),
            f"cluster.endpoint={self.endpoint!r} must be HOST:PORT of node 0, as every node reaches it",
        )
        require(
            -1 <= self.node < self.nodes,
            f"cluster.node={self.node} must lie in 0 to {self.nodes - 1}, the nodes of this job (-1: print commands)",
        )


@dataclass(kw_only=True, slots=True)
class SlurmConfig(ClusterConfig):
    """A job of Slurm; what is empty or 0 is left to the cluster's own default."""

    name: str = "slurm"
    job_name: str = ""
    """Empty: the name of the run's folder."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time_limit: str = ""
    exclusive: bool = False
    cpus_per_rank: int = 0
    """0: ``hardware.num_threads``."""
    memory_gib_per_node: int = 0
    gpus_per_node: str = ""
    """Such as ``h100:8``; empty: one a rank with ``hardware.device=cuda``, else none."""
    save_before_end_s: int = 120
    """So long before the time limit the run saves and queues itself again."""
    max_requeues: int = 100
    max_parallel: int = 0
    """Of a sweep's jobs, so many at once; 0: all."""
    modules: list[str] = field(default_factory=list)
    """``module load`` lines."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the ranks start, as they are; yours to quote."""
    container: list[str] = field(default_factory=list)
    """Words in front of the command on every node, such as ``[apptainer,exec,--nv,image.sif]``."""
    sbatch_flags: list[str] = field(default_factory=list)
    """Further ``#SBATCH`` lines, such as ``--mail-type=END``."""
    srun_flags: list[str] = field(default_factory=list)
    """Further flags of srun, such as ``--container-image=image.sqsh``."""
    python: str = ""
    """Python on the nodes; empty: the one that runs this command."""
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
            f"cluster.time_limit={self.time_limit!r} must be minutes, HH:MM:SS or D-HH:MM:SS",
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


@dataclass(kw_only=True, slots=True)
class KubernetesConfig(ClusterConfig):
    """An Indexed Job of Kubernetes: one pod a node, found by a headless service."""

    name: str = "kubernetes"
    job_name: str = ""
    """Empty: the name of the run's folder."""
    namespace: str = "default"
    image: str = ""
    """Holds this project, installed; the volume is mounted into it."""
    volume_claim: str = ""
    """A claim that every pod can write: the log, the store and the runs."""
    mount_path: str = "/workspace"
    gpus_per_node: int = -1
    """-1: one a rank with ``hardware.device=cuda``, else none."""
    cpus_per_node: int = 0
    """0: ``hardware.num_threads`` a rank."""
    memory_gib_per_node: int = 16
    shared_memory_gib: int = 8
    service_account: str = ""
    node_selector: list[str] = field(default_factory=list)
    """``LABEL=value`` of the machines wanted."""
    max_pod_failures: int = 10
    port: int = 29500

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)
        for name in ("job_name", "namespace"):
            value = getattr(self, name)
            is_name = not value or bool(_KUBERNETES_NAME.fullmatch(value))
            require(is_name, f"cluster.{name}={value!r} must be lower-case letters, digits and '-', at most 52")
        require(bool(self.image), "cluster.image is empty; set it to the image that holds this project")
        require(bool(self.volume_claim), "cluster.volume_claim is empty; set it to a claim that all pods can write")
        for entry in self.node_selector:
            require("=" in entry, f"cluster.node_selector: {entry!r} must be LABEL=value")
        for name in ("memory_gib_per_node", "shared_memory_gib", "port"):
            require(getattr(self, name) >= 1, f"cluster.{name}={getattr(self, name)} must be at least 1")

    @property
    def labels(self) -> dict[str, str]:
        """``node_selector`` by name."""
        return _pairs(self.node_selector)


def _pairs(entries: list[str]) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in entries)
