"""Checks of Slurm, and of the file system that its nodes must share."""

import os
import re
import shlex
import tempfile
from pathlib import Path

from configs.url import is_url
from launch.doctor.answer import NOT_FOUND, TIMED_OUT, Answer, answer_of
from launch.doctor.disk import existing_part
from launch.doctor.row import Row, doubtful, failed, good

TIMEOUT_S = 15
"""For a controller that answers, a moment; one that does not is waited for by Slurm itself 10 s or longer."""
SEEN, MISSING = "sees", "misses"
SEARCH_S = 5
"""A network file system may show a new file late."""


def check_slurm() -> Row:
    """Slurm's version and whether its controller answers; a machine without Slurm is well."""
    version = answer_of(["sbatch", "--version"], timeout_s=TIMEOUT_S)
    if version.code == NOT_FOUND:
        return good("Slurm", "not installed; only needed to launch on a cluster")
    if version.code and "configuration source" in version.reason:
        found = f"sbatch is installed, but knows no cluster: {version.reason}"
        return doubtful("Slurm", found, _mend_of(version))
    if version.code:
        return failed("Slurm", f"sbatch --version: {version.reason}", "sudo apt-get install --reinstall slurm-client")
    nodes = answer_of(["sinfo", "--noheader", "--format=%P %D %t"], timeout_s=TIMEOUT_S)
    if nodes.code:
        return failed("Slurm", f"{version.output.strip()}; sinfo: {nodes.reason}", _mend_of(nodes))
    states = "; ".join(line.strip() for line in nodes.output.splitlines() if line.strip())
    return good("Slurm", f"{version.output.strip()}; partition, nodes, state: {states or 'none'}")


def check_shared_folder(run_dir: str, num_nodes: int) -> Row:
    """Whether every node sees what this one writes in the run folder.

    On one node there is nothing to ask. On several, a file is written in the part of ``run_dir`` that is there, and
    ``srun`` looks for it on each node; outside an allocation it asks Slurm for so many nodes, at once or not at all.
    """
    name = "shared folder"
    if num_nodes == 1:
        return good(name, "one node")
    if is_url(run_dir):
        return failed(name, f"{run_dir} is a URL", "shardrec train ... run_dir=/a/folder/that/all/nodes/mount")
    folder = existing_part(run_dir)
    try:
        with tempfile.NamedTemporaryFile(prefix=".shardrec-doctor-", dir=folder) as file:
            answer = answer_of(_search(file.name, num_nodes), timeout_s=TIMEOUT_S + 2 * SEARCH_S)
    except OSError as error:
        fix = f"shardrec train ... run_dir=/shared/{Path(run_dir).name}"
        return failed(name, f"{folder} cannot be written: {error.strerror}", fix)
    return _row_of(name, answer, folder, num_nodes)


def _search(file: str, num_nodes: int) -> list[str]:
    script = (
        f'i=0; while [ ! -f "$1" ] && [ $i -lt {SEARCH_S} ]; do i=$((i+1)); sleep 1; done; '
        f'if [ -f "$1" ]; then echo {SEEN} "$SLURMD_NODENAME"; else echo {MISSING} "$SLURMD_NODENAME"; fi'
    )
    is_inside = "SLURM_JOB_ID" in os.environ
    how = ["--overlap"] if is_inside else [f"--immediate={SEARCH_S}"]
    size = [f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1"]
    return ["srun", *how, *size, "sh", "-c", script, "sh", file]


def _row_of(name: str, answer: Answer, folder: Path, num_nodes: int) -> Row:
    words = [line.split() for line in answer.output.splitlines()]
    seeing, missing = (
        sorted(line[1] for line in words if line[:1] == [told] and line[1:]) for told in (SEEN, MISSING)
    )
    if answer.code == NOT_FOUND:
        fix = "sudo apt-get install slurm-client   # or examine one node: shardrec doctor"
        return failed(name, f"{num_nodes} nodes, but there is no srun to ask them", fix)
    if missing:
        fix = f"df -h {shlex.quote(str(folder))}   # then: shardrec train ... run_dir=/a/folder/that/all/nodes/mount"
        return failed(name, f"{folder} is not the same on {', '.join(missing)}", fix)
    if answer.code or len(seeing) != num_nodes:
        fix = f"salloc --nodes={num_nodes} shardrec doctor   # waits until the nodes are free"
        mend = (
            _mend_of(answer)
            if re.search("contact|configuration source|munge|authentication", answer.reason, re.I)
            else fix
        )
        return failed(name, f"srun on {num_nodes} nodes: {answer.reason}; {len(seeing)} answered", mend)
    return good(name, f"{folder} is seen by {', '.join(seeing)}")


def _mend_of(answer: Answer) -> str:
    if answer.code == NOT_FOUND:
        return "sudo apt-get install slurm-client"
    if "configuration source" in answer.reason:
        return "export SLURM_CONF=/etc/slurm/slurm.conf   # or where your cluster keeps it"
    if answer.code != TIMED_OUT and re.search("munge|credential|authentication", answer.reason, re.I):
        return "sudo systemctl restart munge && munge -n | unmunge"
    return "scontrol ping; sudo systemctl restart slurmctld   # on the controller's machine"
