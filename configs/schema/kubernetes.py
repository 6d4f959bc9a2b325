"""``cluster=kubernetes``: every key with its default and its bounds."""

import re
from dataclasses import dataclass, field
from typing import Any

from configs.errors import require
from configs.schema.cluster import ClusterConfig

_KUBERNETES_NAME = re.compile(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9./_-]*=[^\n\r\0]*")
_SECRET_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9._-]+")
_TOLERATION = re.compile(r"(?P<key>[A-Za-z0-9./_-]*)(=(?P<value>[A-Za-z0-9._-]*))?(:(?P<effect>[A-Za-z]+))?")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_SOUNDS_SECRET = re.compile(
    r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASS|PASSWORD|PASSWD|CREDENTIALS?|AUTH)(_|$)", re.IGNORECASE
)
_HOLDS_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]+@")


@dataclass(kw_only=True, slots=True)
class KubernetesConfig(ClusterConfig):
    """An Indexed Job of Kubernetes: one pod a node, found by a headless service."""

    name: str = "kubernetes"
    job_name: str = ""
    """Name of the job; empty: the name of the run's folder."""
    namespace: str = "default"
    """Namespace of the job."""
    image: str = ""
    """Image that holds this project, installed (``Dockerfile``)."""
    image_pull_policy: str = ""
    """Always | IfNotPresent | Never; empty: Kubernetes' default."""
    image_pull_secrets: list[str] = field(default_factory=list)
    """Names of the Secrets by which the image is pulled."""
    volume_claim: str = ""
    """Claim of a volume that every pod can write: the log, the store and the runs."""
    mount_path: str = "/workspace"
    """Folder at which the volume is mounted in every pod; the command runs in it."""
    gpus_per_node: int = -1
    """GPUs of each pod; -1: one a rank with ``hardware.device=cuda``, else none."""
    cpus_per_node: int = 0
    """Processors of each pod; 0: ``hardware.num_threads`` a rank."""
    memory_gib_per_node: int = 0
    """GiB of memory of each pod; 0: 4 a rank, 16 with a GPU, and the shared memory, which counts as memory."""
    shared_memory_gib: int = 0
    """GiB of each pod's /dev/shm, through which ranks of one pod exchange tensors; 0: 1 a rank."""
    service_account: str = ""
    """Service account of the pods; empty: the namespace's default."""
    priority_class: str = ""
    """Priority class of the pods; empty: the cluster's default."""
    node_selector: list[str] = field(default_factory=list)
    """``LABEL=value`` of the machines wanted."""
    tolerations: list[str] = field(default_factory=list)
    """Taints of machines that the pods tolerate: ``KEY=VALUE:EFFECT``, ``KEY:EFFECT`` or ``KEY``."""
    labels: list[str] = field(default_factory=list)
    """``LABEL=value``, on the job and its pods."""
    annotations: list[str] = field(default_factory=list)
    """``NAME=value``, on the job and its pods."""
    secrets: list[str] = field(default_factory=list)
    """``NAME=SECRET/KEY``: variables taken from a Secret of the namespace: no value is in the manifest."""
    grace_s: int = 120
    """Seconds that an evicted pod gets to save."""
    ttl_s_after_finished: int = -1
    """Seconds after which an ended job is deleted; -1: never."""
    max_pod_failures: int = 10
    """Pods that may fail by themselves before the job fails."""
    port: int = 29500
    """Port on which the first pod is reached by the others."""
    extra: Any = ""
    """A mapping, or the path of a YAML file, merged into the job: for what no key here says."""

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)
        for name in ("job_name", "namespace"):
            value = getattr(self, name)
            is_name = not value or bool(_KUBERNETES_NAME.fullmatch(value))
            require(is_name, f"cluster.{name}={value!r} must be lower-case letters, digits and '-', at most 52")
        require(bool(self.image), "cluster.image is empty; set it to the image that holds this project")
        require(bool(self.volume_claim), "cluster.volume_claim is empty; set it to a claim that all pods can write")
        require(
            self.image_pull_policy in ("", "Always", "IfNotPresent", "Never"),
            f"cluster.image_pull_policy={self.image_pull_policy} is unknown; set it to Always, IfNotPresent or Never",
        )
        self._check_lists()
        for name in ("memory_gib_per_node", "shared_memory_gib", "cpus_per_node", "max_pod_failures", "grace_s"):
            require(getattr(self, name) >= 0, f"cluster.{name}={getattr(self, name)} must not be negative")
        for name in ("gpus_per_node", "ttl_s_after_finished"):
            require(getattr(self, name) >= -1, f"cluster.{name}={getattr(self, name)} must be at least -1")
        require(1 <= self.port <= 65535, f"cluster.port={self.port} must lie in 1 to 65535")
        require(
            isinstance(self.extra, str | dict),
            f"cluster.extra={self.extra!r} must be a mapping, such as {{spec:{{suspend:true}}}}, or a file",
        )

    def _check_lists(self) -> None:
        for name in ("node_selector", "labels", "annotations"):
            for entry in getattr(self, name):
                require(bool(_LABEL.fullmatch(entry)), f"cluster.{name}: {entry!r} must be NAME=value")
        for entry in self.secrets:
            is_reference = bool(_SECRET_KEY.fullmatch(entry))
            require(is_reference, f"cluster.secrets: {entry.partition('=')[0]!r} must be NAME=SECRET/KEY")
        for entry in self.tolerations:
            found = _TOLERATION.fullmatch(entry)
            is_taint = found is not None and found["effect"] in (None, *_EFFECTS)
            require(
                is_taint, f"cluster.tolerations: {entry!r} must be KEY=VALUE:EFFECT, one of {', '.join(_EFFECTS)}"
            )
        for name, value in self.variables.items():
            is_secret = _SOUNDS_SECRET.search(name) or _HOLDS_PASSWORD.search(value)
            require(
                not is_secret,
                f"cluster.environment: {name} looks like a secret, which would be readable in the manifest; write "
                f"cluster.secrets=[{name}=SECRET/KEY] after `kubectl create secret generic SECRET ...`",
            )

    @property
    def taints(self) -> list[dict[str, str]]:
        """``tolerations`` as Kubernetes writes them."""
        found = [_TOLERATION.fullmatch(entry) for entry in self.tolerations]
        return [_toleration(**each.groupdict()) for each in found if each is not None]


def _toleration(key: str, value: str | None, effect: str | None) -> dict[str, str]:
    how = {"operator": "Exists"} if value is None else {"operator": "Equal", "value": value}
    return {**({"key": key} if key else {}), **how, **({"effect": effect} if effect else {})}
