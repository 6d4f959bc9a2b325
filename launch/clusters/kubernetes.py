"""``cluster=kubernetes``: the manifest of an Indexed Job, one pod a node, for ``kubectl apply -f -``."""

import re
from pathlib import Path
from typing import Any

from configs.errors import REQUEUE_EXIT_CODE, ConfigError
from configs.schema import RunConfig
from configs.schema.cluster import KubernetesConfig
from launch.clusters.node import flags_of, ranks_per_node

GRACE_S = 120
"""What an evicted pod gets to save."""


def manifest_of(cluster: KubernetesConfig, config: RunConfig, overrides: list[str]) -> str:
    """The YAML of a headless service, by which pods find node 0, and of the job. Store and run lie on the claim."""
    import yaml  # comes with omegaconf

    name = _name(cluster, config)
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {"clusterIP": "None", "selector": {"job-name": name}, "publishNotReadyAddresses": True},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {
            "completions": cluster.nodes,
            "parallelism": cluster.nodes,
            "completionMode": "Indexed",
            "backoffLimit": cluster.max_pod_failures,
            "podFailurePolicy": {"rules": _rules()},
            "template": {"metadata": {"labels": {"job-name": name}}, "spec": _pod(cluster, config, name, overrides)},
        },
    }
    return yaml.safe_dump_all([service, job], sort_keys=False, width=1000)


def _name(cluster: KubernetesConfig, config: RunConfig) -> str:
    name = cluster.job_name or re.sub(r"[^a-z0-9]+", "-", Path(config.run_dir).name.lower()).strip("-")[:52]
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):
        raise ConfigError(f"run_dir={config.run_dir} gives no name of a job; set cluster.job_name")
    return name


def _rules() -> list[dict[str, Any]]:
    """A pod that saved or was evicted starts again without being counted; a wrong key ends the job."""
    return [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [REQUEUE_EXIT_CODE]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},
    ]


def _pod(cluster: KubernetesConfig, config: RunConfig, name: str, overrides: list[str]) -> dict[str, Any]:
    endpoint = f"{name}-0.{name}:{cluster.port}"
    flags = [
        *flags_of(cluster),
        f"--endpoint={endpoint}",
        f"--run-id={name}",
        "--node-variable=JOB_COMPLETION_INDEX",
        "--prepare",
    ]
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "subdomain": name,
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [
            {
                "name": "node",
                "image": cluster.image,
                "workingDir": cluster.mount_path,
                "command": ["python", "-m", "launch.clusters.node", *flags, *overrides],
                "env": [{"name": name, "value": value} for name, value in cluster.variables.items()],
                "ports": [{"containerPort": cluster.port}],
                "resources": _resources(cluster, config),
                "volumeMounts": [
                    {"name": "work", "mountPath": cluster.mount_path},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                ],
            }
        ],
        "volumes": [
            {"name": "work", "persistentVolumeClaim": {"claimName": cluster.volume_claim}},
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory", "sizeLimit": f"{cluster.shared_memory_gib}Gi"},
            },
        ],
    }
    if cluster.service_account:
        pod["serviceAccountName"] = cluster.service_account
    if cluster.node_selector:
        pod["nodeSelector"] = cluster.labels
    return pod


def _resources(cluster: KubernetesConfig, config: RunConfig) -> dict[str, dict[str, str]]:
    per_node = ranks_per_node(config, cluster.nodes)
    gpus = cluster.gpus_per_node if cluster.gpus_per_node >= 0 else per_node * (config.hardware.device == "cuda")
    amounts = {
        "cpu": str(cluster.cpus_per_node or per_node * config.hardware.num_threads),
        "memory": f"{cluster.memory_gib_per_node}Gi",
        **({"nvidia.com/gpu": str(gpus)} if gpus else {}),
    }
    return {"requests": amounts, "limits": amounts}
