"""The manifest of Kubernetes is valid, holds every choice and no secret, and its rules fit the exit codes of pods."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from configs.atomic_files import write_text
from configs.errors import ConfigError
from configs.load import load_config, resolved_yaml
from launch.clusters.kubernetes import merged
from launch.start import launch

KUBERNETES = ["cluster=kubernetes", "cluster.image=registry/shardrec:1", "cluster.volume_claim=work", "--dry-run"]


def test_the_manifest_is_what_kubernetes_takes(capsys: pytest.CaptureFixture[str]):
    words = ["cluster.nodes=2", "hardware=h100", "hardware.num_ranks=8", "run_dir=runs/My_Run"]
    more = [
        'cluster.environment=["NCCL_DEBUG=INFO"]',
        'cluster.node_selector=["gpu=h100"]',
        "cluster.service_account=me",
    ]
    assert launch([*KUBERNETES, *words, *more]) == 0
    service, job = yaml.safe_load_all(capsys.readouterr().out)
    for document in (service, job):
        kubernetes_validate.validate(document, "1.30", strict=True)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "4"
    assert "--endpoint=my-run-0.my-run:29500" in container["command"]
    assert container["env"] == [{"name": "NCCL_DEBUG", "value": "INFO"}]
    assert (job["spec"]["completions"], job["spec"]["completionMode"]) == (2, "Indexed")
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]


def test_kubernetes_starts_nothing_by_itself():
    with pytest.raises(ConfigError, match="--dry-run"):
        launch([word for word in KUBERNETES if word != "--dry-run"])


def manifest(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Service and job, which are valid."""
    assert launch([*KUBERNETES, *words]) == 0
    service, job = yaml.safe_load_all(capsys.readouterr().out)
    for document in (service, job):
        kubernetes_validate.validate(document, "1.30", strict=True)
    return service, job


def test_every_choice_is_in_the_manifest(capsys: pytest.CaptureFixture[str]):
    _, job = manifest(
        capsys,
        "run_dir=runs/a",
        "cluster.image_pull_policy=Always",
        "cluster.image_pull_secrets=[registry]",
        "cluster.priority_class=low",
        "cluster.tolerations=['nvidia.com/gpu:NoSchedule','team=recsys:NoExecute',spot]",
        "cluster.labels=['team=recsys']",
        "cluster.annotations=['note=two words']",
        "cluster.secrets=['WANDB_API_KEY=wandb/api-key']",
        "cluster.grace_s=300",
        "cluster.ttl_s_after_finished=3600",
    )
    pod = job["spec"]["template"]["spec"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600
    assert pod["terminationGracePeriodSeconds"] == 300
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["priorityClassName"] == "low"
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "recsys", "effect": "NoExecute"},
        {"key": "spot", "operator": "Exists"},
    ]
    for place in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert place["labels"]["team"] == "recsys"
        assert place["annotations"] == {"note": "two words"}
    (variable,) = pod["containers"][0]["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "wandb", "key": "api-key"}
    assert pod["containers"][0]["imagePullPolicy"] == "Always"


@pytest.mark.parametrize(
    ("ranks", "words", "memory", "shared"),
    [
        (8, ["cluster.nodes=2"], "20Gi", "4Gi"),
        (8, ["hardware=h100"], "136Gi", "8Gi"),
        (1, ["cluster.memory_gib_per_node=9", "cluster.shared_memory_gib=2"], "9Gi", "2Gi"),
    ],
)
def test_memory_and_shared_memory_fit_the_ranks(
    ranks: int, words: list[str], memory: str, shared: str, capsys: pytest.CaptureFixture[str]
):
    _, job = manifest(capsys, f"hardware.num_ranks={ranks}", "run_dir=runs/a", *words)
    pod = job["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["memory"] == memory
    assert pod["volumes"][1]["emptyDir"]["sizeLimit"] == shared


def test_what_no_key_says_is_merged_into_the_job(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """In a file, or as a mapping; containers and volumes by their names."""
    extra = {
        "spec": {
            "activeDeadlineSeconds": 60,
            "template": {
                "spec": {
                    "containers": [
                        {"name": "node", "securityContext": {"runAsUser": 7}},
                        {"name": "b", "image": "b"},
                    ],
                    "hostNetwork": True,
                }
            },
        }
    }
    (tmp_path / "extra.yaml").write_text(yaml.safe_dump(extra))
    mapping = (
        "cluster.extra={spec:{activeDeadlineSeconds:60,template:{spec:{containers:[{name:node,securityContext:"
        "{runAsUser:7}},{name:b,image:b}],hostNetwork:true}}}}"
    )
    jobs = [manifest(capsys, "run_dir=runs/a", word)[1] for word in (f"cluster.extra={tmp_path}/extra.yaml", mapping)]
    assert jobs[0] == jobs[1]
    pod = jobs[0]["spec"]["template"]["spec"]
    assert jobs[0]["spec"]["activeDeadlineSeconds"] == 60
    assert pod["hostNetwork"] is True
    assert [each["name"] for each in pod["containers"]] == ["node", "b"]
    assert pod["containers"][0]["securityContext"] == {"runAsUser": 7}
    assert pod["containers"][0]["image"] == "registry/shardrec:1"


def test_merging_changes_neither_side():
    base: dict[str, Any] = {"a": {"b": [1]}}
    extra: dict[str, Any] = {"a": {"b": [2], "c": 3}}
    assert merged(base, extra) == {"a": {"b": [1, 2], "c": 3}}
    assert (base, extra) == ({"a": {"b": [1]}}, {"a": {"b": [2], "c": 3}})


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("cluster.environment=['WANDB_API_KEY=s3cr3t']", "cluster.secrets=[WANDB_API_KEY="),
        ("cluster.environment=['DSN=postgres://me:s3cr3t@host/db']", "DSN looks like a secret"),
        ("cluster.secrets=['A=b']", "NAME=SECRET/KEY"),
        ("cluster.tolerations=['a:Never']", "cluster.tolerations"),
        ("cluster.node_selector=[gpu]", "cluster.node_selector"),
        ("cluster.labels=[a]", "cluster.labels"),
        ("cluster.image_pull_policy=Sometimes", "cluster.image_pull_policy"),
        ("cluster.memory_gib_per_node=1", "cluster.memory_gib_per_node=1"),
        ("cluster.port=99999", "cluster.port=99999"),
        ("cluster.extra=no/such/file.yaml", "cluster.extra=no/such/file.yaml"),
        ("cluster.ttl_s_after_finished=-2", "cluster.ttl_s_after_finished"),
    ],
)
def test_a_choice_that_cannot_be_is_named(word: str, named: str):
    with pytest.raises(ConfigError) as error:
        launch([*KUBERNETES, "hardware.num_ranks=4", "run_dir=runs/a", word])
    assert named in str(error.value)
    assert "s3cr3t" not in str(error.value)


def test_an_evaluation_is_a_job_beside_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    run = tmp_path / "mine"
    run.mkdir()
    write_text(run / "config.yaml", resolved_yaml(load_config(["data.store=s", f"run_dir={run}"])))
    assert launch(["evaluate", *KUBERNETES, f"run_dir={run}"]) == 0
    _, job = yaml.safe_load_all(capsys.readouterr().out)
    assert job["metadata"]["name"] == "evaluate-mine"
    assert "--verb=evaluate" in job["spec"]["template"]["spec"]["containers"][0]["command"]
