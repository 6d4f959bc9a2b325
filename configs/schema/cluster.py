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
    """Name of the kind of cluster."""
    nodes: int = 1
    """Machines of the job, which share ``hardware.num_ranks`` evenly."""
    min_nodes: int = 0
    """An elastic job goes on with this many nodes; 0: it needs all of them."""
    max_restarts: int = 0
    """Times that failed ranks are started again from the last checkpoint."""
    rendezvous_timeout_s: int = 60
    """Seconds within which all nodes must meet."""
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
    """Time limit of the job; before it, and when preempted, the run saves and queues itself again."""
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
    """Names for ``module load``."""
    setup: list[str] = field(default_factory=list)
    """Lines of shell before the ranks start, as they are; quoting is yours."""
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
    """Name of the job; empty: the name of the run's folder."""
    namespace: str = "default"
    """Namespace of the job."""
    image: str = ""
    """Image that holds this project, installed."""
    volume_claim: str = ""
    """Claim of a volume that every pod can write: the log, the store and the runs."""
    mount_path: str = "/workspace"
    """Folder at which the volume is mounted in every pod."""
    gpus_per_node: int = -1
    """GPUs of each pod; -1: one a rank with ``hardware.device=cuda``, else none."""
    cpus_per_node: int = 0
    """Processors of each pod; 0: ``hardware.num_threads`` a rank."""
    memory_gib_per_node: int = 16
    """GiB of memory of each pod."""
    shared_memory_gib: int = 8
    """GiB of each pod's /dev/shm, through which ranks of one pod exchange tensors."""
    service_account: str = ""
    """Service account of the pods; empty: the namespace's default."""
    node_selector: list[str] = field(default_factory=list)
    """``LABEL=value`` of the machines wanted."""
    max_pod_failures: int = 10
    """Failed pods after which the job fails."""
    port: int = 29500
    """Port on which the first pod is reached by the others."""

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


@dataclass(kw_only=True, slots=True)
class LaunchConfig:
    """What ``configs/launch.yaml`` composes."""

    config_dir: str = ""
    """Folder of your own YAML files, as for a run."""
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    """The machines: where the job is started."""
