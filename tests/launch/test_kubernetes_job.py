"""The manifest's commands as real processes, under its own rules: a job outlives pods that come late or are killed.

The test is the Job's controller: it starts a pod for each index, and does with its exit code what the failure policy
says. A service's name leads to this machine.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import NODES_MISSING_EXIT_CODE, REQUEUE_EXIT_CODE, USAGE_EXIT_CODE
from launch.start import launch
from processes import free_port, wait_for

REPOSITORY = Path(__file__).parents[2]
RUN = [
    "model.embedding_dim=16",
    "data.global_batch_size=32",
    "checkpoint.every_steps=10",
    "log_every_steps=1",
    "evaluation.every_steps=1000",
    "hardware.num_ranks=2",
]


class Job:
    """A Job of Kubernetes and its pods; ``log`` gets what they print."""

    def __init__(self, manifest: dict[str, Any], folder: Path, log: Path) -> None:
        self._spec, self._folder, self._log = manifest["spec"], folder, log
        (container,) = self._spec["template"]["spec"]["containers"]
        self._command = [
            f"--endpoint=localhost:{word.rpartition(':')[2]}" if word.startswith("--endpoint=") else word
            for word in container["command"]
        ]
        self.pods: dict[int, subprocess.Popen[bytes]] = {}
        self.codes: list[int] = []
        self.num_counted = 0
        self.has_failed = False

    def start(self, index: int) -> "subprocess.Popen[bytes]":
        """The pod of ``index``."""
        environment = os.environ | {
            "JOB_COMPLETION_INDEX": str(index),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONSAFEPATH": "1",
        }
        with self._log.open("a") as log:
            self.pods[index] = subprocess.Popen(
                [sys.executable, *self._command[1:]], cwd=self._folder, env=environment, stdout=log, stderr=log
            )
        return self.pods[index]

    def tend(self, index: int) -> str:
        """Wait for the pod of ``index`` and do what the rules say: start it again, count it, or fail."""
        code = self.pods[index].wait()
        self.codes.append(code)
        if code == 0:
            return "Complete"
        action = self.action(code)
        self.num_counted += action == "Count"
        self.has_failed |= action == "FailJob" or self.num_counted > self._spec["backoffLimit"]
        if not self.has_failed:
            self.start(index)
        return action

    def action(self, code: int) -> str:
        """What the first rule that fits says."""
        for rule in self._spec["podFailurePolicy"]["rules"]:
            if code in rule.get("onExitCodes", {"values": []})["values"]:
                return str(rule["action"])
        return "Count"


def job_of(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> Job:
    cluster = ["cluster=kubernetes", "cluster.image=i", "cluster.volume_claim=work", "cluster.nodes=2", "--dry-run"]
    assert launch([*cluster, f"cluster.port={free_port()}", "run_dir=run", *RUN, *words]) == 0
    _, manifest = yaml.safe_load_all(capsys.readouterr().out)
    return Job(manifest, folder, folder / "pods.log")


SYNTHETIC = ["data=synthetic", "data.synthetic.num_users=300", "data.synthetic.num_items=50", "data.store=store"]


@pytest.mark.slow
def test_a_job_outlives_a_node_that_comes_late_and_pods_that_are_evicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Node 1's image is pulled for longer than node 0 waits; then both are evicted while they train."""
    log = f"data.log={tmp_path}/log.parquet"
    job = job_of(capsys, tmp_path, *SYNTHETIC, log, "num_steps=400", "cluster.rendezvous_timeout_s=4")
    job.start(0)
    assert job.tend(0) == "Ignore"
    assert job.codes == [NODES_MISSING_EXIT_CODE]
    job.start(1)
    metrics = tmp_path / "run" / "metrics.jsonl"

    def until_it_trains() -> bool:
        for index in (0, 1):  # one that came too late for the other starts again too
            if (code := job.pods[index].poll()) is not None:
                assert code == NODES_MISSING_EXIT_CODE, job_log(tmp_path)
                assert job.tend(index) == "Ignore"
        return metrics.is_file() and metrics.stat().st_size > 0

    wait_for(until_it_trains)
    for pod in job.pods.values():
        pod.send_signal(signal.SIGTERM)
    assert [job.tend(index) for index in (0, 1)] == ["Ignore", "Ignore"], job_log(tmp_path)
    assert job.codes[-2:] == [REQUEUE_EXIT_CODE] * 2

    open_pods = {0, 1}
    while open_pods:
        index = min(open_pods)
        if job.tend(index) == "Complete":
            open_pods.remove(index)
        assert not job.has_failed, job_log(tmp_path)
    assert job.num_counted == 0
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_wrong_key_ends_the_job_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the manifest's machine could not know: a store of no log. Both pods end, node 1 with node 0's code."""
    job = job_of(capsys, tmp_path, "data.store=no/such/store")
    pods = [job.start(index) for index in (0, 1)]
    assert [pod.wait() for pod in pods] == [USAGE_EXIT_CODE] * 2, job_log(tmp_path)
    assert job.tend(0) == "FailJob"
    assert "no/such/store" in job_log(tmp_path)


def test_a_pod_that_is_evicted_while_it_waits_is_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(capsys, tmp_path, *SYNTHETIC, f"data.log={tmp_path}/log.parquet")
    pod = job.start(1)
    wait_for(lambda: blocks_sigterm(pod.pid))
    pod.send_signal(signal.SIGTERM)
    code = pod.wait()
    assert (code, job.action(code)) == (REQUEUE_EXIT_CODE, "Ignore"), job_log(tmp_path)


def blocks_sigterm(process: int) -> bool:
    """Whether the process keeps stop signals waiting, as a node does from its start."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (mask,) = [line.split()[1] for line in lines if line.startswith("SigBlk")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def job_log(folder: Path) -> str:
    return (folder / "pods.log").read_text()
