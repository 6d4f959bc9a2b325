"""Shows how a Slurm job goes: its state when it changes, and its log as it grows, until the job has ended."""

import sys
import time
from pathlib import Path

from configs.errors import ConfigError
from launch.clusters.slurm import ForgottenJob, slurm

POLL_S = 1.0
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")
"""States that a job does not leave. PREEMPTED it does where it is queued again, and a pending one has waited out."""
HOPELESS = {
    "PartitionTimeLimit": "lower cluster.time_limit, or choose a cluster.partition that allows it",
    "PartitionNodeLimit": "lower cluster.nodes, or choose a cluster.partition that has that many",
    "BadConstraints": "no machine has what cluster.constraint, cluster.gpus_per_node or the memory ask for",
    "QOSMaxWallDurationPerJobLimit": "lower cluster.time_limit, or choose another cluster.qos",
    "AssociationTimeLimit": "lower cluster.time_limit, or choose another cluster.account",
    "InvalidAccount": "choose a cluster.account of yours (sacctmgr show associations user=$USER)",
    "InvalidQOS": "choose a cluster.qos of yours (sacctmgr show associations user=$USER)",
}
"""Reasons for which a job waits in vain though Slurm has taken it, and what to do."""


def follow(job: str, logs: Path, log_name: str = "slurm-") -> int:
    """Show job ``job``, a number, whose logs ``slurm-JOB*.log`` (``log_name``) lie in ``logs``, until it has ended.

    Raises :class:`ConfigError` for a job that could never start, after taking it back.
    Returns 0 where it completed (each of an array), else 1. Ctrl-C ends the showing and leaves the job alone.
    """
    tails = _Tails(logs, f"{log_name}{job}*.log")
    told: dict[str, str] = {}
    ended: dict[str, str] = {}
    try:
        while True:
            states = _states(job, told)
            tails.show()
            for task, state in states.items():
                if told.get(task) != state:
                    print(f"job {task}: {state}", file=sys.stderr, flush=True)
            told |= states
            _refuse_hopeless(job, states)
            ended |= {task: state for task, state in states.items() if state.split()[0] in ENDED}
            # The tasks of an array that wait are one entry, which goes when they run.
            if states.keys() <= ended.keys():
                return 0 if ended and all(state.split()[0] == "COMPLETED" for state in ended.values()) else 1
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        print(
            f"\njob {job} keeps running; its log: tail -F {logs}/{log_name}{job}*.log   end it: scancel {job}",
            file=sys.stderr,
        )
        return 0


def _refuse_hopeless(job: str, states: dict[str, str]) -> None:
    for state in states.values():
        reason = state.partition(" (")[2].removesuffix(")")
        if state.startswith("PENDING") and reason in HOPELESS:
            slurm("scancel", job)
            raise ConfigError(f"job {job} would wait for ever ({reason}) and was taken back: {HOPELESS[reason]}")


def _states(job: str, last: dict[str, str]) -> dict[str, str]:
    """``STATE (reason)`` by task; empty when Slurm has forgotten the job, minutes after its end."""
    try:
        lines = slurm("scontrol", "show", "job", "--oneliner", job).splitlines()
    except ForgottenJob:
        return {}
    except ConfigError:
        return last  # Slurm's controller may be away for a while
    states = {}
    for line in lines:
        told = dict(word.partition("=")[::2] for word in line.split() if "=" in word)
        task = told.get("ArrayTaskId", "")
        name = f"{job}_{task}" if task else job
        reason = told.get("Reason", "None")
        where = told.get("NodeList", "(null)")
        note = where if where not in ("(null)", "") and told["JobState"] == "RUNNING" else reason
        states[name] = told["JobState"] + (f" ({note})" if note not in ("None", "(null)") else "")
    return states


class _Tails:
    """What was appended to the logs of a job since they were last looked at."""

    def __init__(self, logs: Path, pattern: str) -> None:
        self._logs, self._pattern = logs, pattern
        self._shown: dict[Path, int] = {}

    def show(self) -> None:
        """Write the new lines of every log."""
        for path in sorted(self._logs.glob(self._pattern)):
            with path.open("rb") as file:
                file.seek(self._shown.get(path, 0))
                fresh = file.read()
            self._shown[path] = self._shown.get(path, 0) + len(fresh)
            sys.stdout.write(fresh.decode(errors="replace"))
        sys.stdout.flush()
