"""``cluster=kubernetes``: the manifest of an Indexed Job, one pod a node, for ``kubectl apply -f -``."""

import re
from pathlib import Path
from typing import Any

from configs.errors import NODES_MISSING_EXIT_CODE, REQUEUE_EXIT_CODE, USAGE_EXIT_CODE, ConfigError
from configs.schema import RunConfig
from configs.schema.cluster import pairs_of
from configs.schema.kubernetes import KubernetesConfig
from launch.clusters.node import flags_of, ranks_per_node
from launch.verbs import Verb

GIB_PER_RANK = {"cpu": 4, "cuda": 16}
"""Memory of a rank beside its tables' shards: libraries, batches, pinned buffers. A guess to be overruled."""
SHARED_GIB_PER_RANK = 1
LIBRARIES_GIB_PER_RANK = 0.5
"""What a rank takes before any table (``launch.doctor.limits``)."""


def manifest_of(cluster: KubernetesConfig, verb: Verb, config: RunConfig, overrides: list[str]) -> str:
    """The YAML of a headless service, by which pods find node 0, and of the job. Store and run lie on the claim."""
    import yaml  # comes with omegaconf

    name = _name(cluster, verb, config)
    metadata = {"name": name, "namespace": cluster.namespace}
    own = {"job-name": name}
    labels, annotations = pairs_of(cluster.labels), pairs_of(cluster.annotations)
    marks = {**({"annotations": annotations} if annotations else {})}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**metadata, **({"labels": labels} if labels else {})},
        "spec": {"clusterIP": "None", "selector": own, "publishNotReadyAddresses": True},
    }
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, **({"labels": labels} if labels else {}), **marks},
        "spec": {
            "completions": cluster.nodes,
            "parallelism": cluster.nodes,
            "completionMode": "Indexed",
            "backoffLimit": cluster.max_pod_failures,
            "podFailurePolicy": {"rules": failure_rules()},
            "template": {
                "metadata": {"labels": {**labels, **own}, **marks},
                "spec": _pod(cluster, verb, config, name, overrides),
            },
        },
    }
    if cluster.ttl_s_after_finished >= 0:
        job["spec"]["ttlSecondsAfterFinished"] = cluster.ttl_s_after_finished
    return yaml.safe_dump_all([service, merged(job, _extra(cluster))], sort_keys=False, width=1000)


def failure_rules() -> list[dict[str, Any]]:
    """A pod that saved, was evicted or waited in vain for another starts again, uncounted; a wrong key is final."""
    again = [NODES_MISSING_EXIT_CODE, REQUEUE_EXIT_CODE]
    return [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": again}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [USAGE_EXIT_CODE]}},
    ]


def merged(base: Any, extra: Any) -> Any:
    """``extra`` over ``base``: mappings key by key, named entries of lists by name, others appended."""
    if isinstance(base, dict) and isinstance(extra, dict):
        return {**base, **{key: merged(base[key], value) if key in base else value for key, value in extra.items()}}
    if isinstance(base, list) and isinstance(extra, list):
        return _merged_lists(base, extra)
    return extra


def _merged_lists(base: list[Any], extra: list[Any]) -> list[Any]:
    result = list(base)
    for entry in extra:
        name = entry.get("name") if isinstance(entry, dict) else None
        named = [
            index
            for index, each in enumerate(result)
            if name is not None and isinstance(each, dict) and each.get("name") == name
        ]
        if named:
            result[named[0]] = merged(result[named[0]], entry)
        else:
            result.append(entry)
    return result


def _extra(cluster: KubernetesConfig) -> dict[str, Any]:
    import yaml

    if isinstance(cluster.extra, dict):
        return cluster.extra
    if not cluster.extra:
        return {}
    try:
        found = yaml.safe_load(Path(cluster.extra).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cluster.extra={cluster.extra} cannot be read: {reason}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"cluster.extra={cluster.extra} holds no mapping; write what the job lacks, such as spec:")
    return found


def _name(cluster: KubernetesConfig, verb: Verb, config: RunConfig) -> str:
    words = f"{verb.log_prefix}{Path(config.run_dir).name}"
    name = cluster.job_name or re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:52].strip("-")
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        raise ConfigError(f"run_dir={config.run_dir} gives no name of a job; set cluster.job_name")
    return name


def _pod(cluster: KubernetesConfig, verb: Verb, config: RunConfig, name: str, overrides: list[str]) -> dict[str, Any]:
    resources, shared_gib = _resources(cluster, config)
    return {
        "restartPolicy": "Never",
        "subdomain": name,
        "terminationGracePeriodSeconds": cluster.grace_s,
        "containers": [
            {
                "name": "node",
                "image": cluster.image,
                **({"imagePullPolicy": cluster.image_pull_policy} if cluster.image_pull_policy else {}),
                "workingDir": cluster.mount_path,
                "command": _command(cluster, verb, name, overrides),
                "env": _environment(cluster),
                "ports": [{"containerPort": cluster.port}],
                "resources": resources,
                "volumeMounts": [
                    {"name": "work", "mountPath": cluster.mount_path},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": cluster.volume_claim}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shared_gib}Gi"}},
        ],
        **_placement(cluster),
    }


def _command(cluster: KubernetesConfig, verb: Verb, name: str, overrides: list[str]) -> list[str]:
    flags = [
        *flags_of(cluster),
        f"--endpoint={name}-0.{name}:{cluster.port}",
        f"--run-id={name}",
        "--node-variable=JOB_COMPLETION_INDEX",
        f"--verb={verb.name}",
    ]
    return ["python", "-m", "launch.clusters.node", *flags, *overrides]


def _environment(cluster: KubernetesConfig) -> list[dict[str, Any]]:
    plain: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in cluster.variables.items()]
    for name, reference in pairs_of(cluster.secrets).items():
        secret, key = reference.split("/")
        plain.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return plain


def _placement(cluster: KubernetesConfig) -> dict[str, Any]:
    """Where the pods may run, as whom, and by what right; nothing of what is not set."""
    choices = {
        "serviceAccountName": cluster.service_account,
        "priorityClassName": cluster.priority_class,
        "nodeSelector": pairs_of(cluster.node_selector),
        "tolerations": cluster.taints,
        "imagePullSecrets": [{"name": secret} for secret in cluster.image_pull_secrets],
    }
    return {key: value for key, value in choices.items() if value}


def _resources(cluster: KubernetesConfig, config: RunConfig) -> tuple[dict[str, dict[str, str]], int]:
    """Requests and limits of a pod, and the GiB of its shared memory, which counts as memory."""
    per_node, device = ranks_per_node(config, cluster.nodes), config.hardware.device
    gpus = cluster.gpus_per_node if cluster.gpus_per_node >= 0 else per_node * (device == "cuda")
    shared = cluster.shared_memory_gib or SHARED_GIB_PER_RANK * per_node
    memory = cluster.memory_gib_per_node or GIB_PER_RANK[device] * per_node + shared
    least = LIBRARIES_GIB_PER_RANK * per_node
    if memory < least:
        raise ConfigError(
            f"cluster.memory_gib_per_node={memory} does not hold {per_node} ranks, which take {least:g} GiB before "
            f"any table; raise it"
        )
    if memory <= cluster.shared_memory_gib:
        raise ConfigError(
            f"cluster.memory_gib_per_node={memory} must be more than cluster.shared_memory_gib="
            f"{cluster.shared_memory_gib}, which is part of it"
        )
    amounts = {
        "cpu": str(cluster.cpus_per_node or per_node * config.hardware.num_threads),
        "memory": f"{memory}Gi",
        **({"nvidia.com/gpu": str(gpus)} if gpus else {}),
    }
    return {"requests": amounts, "limits": amounts}, shared
