"""A real Slurm of two nodes on this machine, for tests: no systemd, no cgroups, no database. Needs root."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
NODES = ("shardrec1", "shardrec2")
START_S = 30

CONFIGURATION = """ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge/socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MinJobAge=600
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/pid/slurmctld
SlurmdPidFile={folder}/pid/slurmd-%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF
"""
"""``cred_expire`` is short since a job that is queued again waits for it; ``KillWait`` and ``GraceTime`` are what a
job gets to save."""


def why_not() -> str:
    """Why Slurm cannot be started here; empty where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{missing[0]} is not installed; tests/install_slurm.sh installs Slurm on Debian, as root"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root"


@contextmanager
def slurm_cluster(port: int = 16917) -> Iterator[dict[str, str]]:
    """Environment variables that make Slurm talk to a new cluster; it ends with the block.

    ``/etc/hosts`` gets a line for each of :data:`NODES`: a job reaches the others by name.
    """
    with TemporaryDirectory(prefix="shardrec-slurm-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # munge refuses a socket that not all can reach
        with _cluster(folder, port) as variables:
            yield variables


@contextmanager
def _cluster(folder: Path, port: int) -> Iterator[dict[str, str]]:
    for name in ("munge", "state", "log", "pid"):
        (folder / name).mkdir(parents=True)
    (folder / "munge").chmod(0o711)
    _name_nodes()
    lines = [
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.{11 + number} Port={port + 1 + number} CPUs=4"
        for number, name in enumerate(NODES)
    ]
    conf = folder / "slurm.conf"
    conf.write_text(CONFIGURATION.format(folder=folder, port=port, nodes="\n".join(lines)))
    environment = {"SLURM_CONF": str(conf)}
    try:
        _start(folder, environment)
        yield environment
    finally:
        _stop(folder, environment)


def _name_nodes() -> None:
    hosts = Path("/etc/hosts")
    known = hosts.read_text().split()
    with hosts.open("a") as file:
        for number, name in enumerate(NODES):
            if name not in known:
                file.write(f"127.0.0.{11 + number} {name}\n")


def _start(folder: Path, environment: dict[str, str]) -> None:
    munge = folder / "munge"
    (munge / "key").write_bytes(secrets.token_bytes(1024))
    (munge / "key").chmod(0o600)
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    _run(["munged", *(f"--{flag}={munge / name}" for flag, name in files.items())], environment)
    _run(["slurmctld", "-i"], environment)
    for name in NODES:
        _run(["slurmd", "-N", name], environment)
    deadline = time.monotonic() + START_S
    while _run(["sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D"], environment, check=False) != str(len(NODES)):
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-2000:] for path in (folder / "log").iterdir())
            raise RuntimeError(f"Slurm has not come up in {START_S} s:\n{logs}")
        time.sleep(0.1)


def _stop(folder: Path, environment: dict[str, str]) -> None:
    """End the jobs, then the daemons by the ids that they have written down."""
    for partition in ("main", "high"):
        _run(["scancel", "-p", partition], environment, check=False)
    deadline = time.monotonic() + START_S
    while _run(["squeue", "-h"], environment, check=False) and time.monotonic() < deadline:
        time.sleep(0.2)
    written = [*(folder / "pid").glob("slurmd-*"), folder / "pid" / "slurmctld", folder / "munge" / "pid"]
    daemons = [int(path.read_text()) for path in written if path.is_file()]
    for daemon in daemons:
        os.kill(daemon, signal.SIGTERM)
    while any(Path(f"/proc/{daemon}").exists() for daemon in daemons):  # slurmctld writes its state at the end
        time.sleep(0.1)


def _run(command: list[str], environment: dict[str, str], *, check: bool = True) -> str:
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip()
