"""The check that no list of versions replaces: two processes train on a sharded table, and agree with one."""

import json
import shlex
import sys
from collections.abc import Sequence

from configs.process_environment import ROOT
from configs.schema import HardwareConfig
from launch.doctor.answer import TIMED_OUT, Answer, module_answer
from launch.doctor.row import Row, failed, good
from launch.doctor.software import install_command, reinstall_command

NAME = "sharded step"
NUM_RANKS = 2
TIMEOUT_S = 90
"""It takes 15 s on two cores; a hanging rank gives up after 20."""


def check_sharded_step(hardware: HardwareConfig, gpus: Sequence[str]) -> Row:
    """Train a tiny model on two ranks: on GPUs where ``hardware`` wants them and there are two, else on the CPU."""
    device = "cuda" if hardware.device == "cuda" and len(gpus) >= NUM_RANKS else "cpu"
    answer = module_answer("train.doctor.selfcheck", device, timeout_s=TIMEOUT_S)
    told = [json.loads(line) for line in answer.output.splitlines() if line.startswith('{"one_rank"')]
    if not told:
        return failed(NAME, f"on {device}: {answer.reason}", _mend_of(answer, device))
    found = told[-1]
    one, two = found["one_rank"], found["two_ranks"]
    if not found["agrees"]:
        return failed(NAME, f"losses on two ranks are {two}, on one rank {one}", reinstall_command(device))
    backend = "nccl on two GPUs" if device == "cuda" else "gloo on the CPU"
    gap = max(abs(loss - expected) for losses in two for loss, expected in zip(losses, one, strict=True))
    placed = f"{found['placement']}, {backend}: loss {one[0]:.4f}, {gap:.0e} from one rank's"
    return good(NAME, f"{placed}; {found['peak_gib_per_rank']:.2f} GiB a rank")


def not_run(reason: str, fix: str) -> Row:
    """The row where the step cannot succeed."""
    return failed(NAME, f"not run: {reason}", fix)


def _mend_of(answer: Answer, device: str) -> str:
    """By what was written: a full disk, a missing package, ranks that do not meet; else the whole text."""
    text = answer.reason.lower()
    if "no space left" in text:
        return "df -h ${TMPDIR:-/tmp}; export TMPDIR=/a/folder/with/space"
    if "no usable temporary directory" in text:
        return "export TMPDIR=/a/folder/that/can/be/written"
    if "modulenotfounderror" in text or "importerror" in text:
        return install_command(device)
    if answer.code == TIMED_OUT or "timed out" in text or "connect" in text:
        return "export GLOO_SOCKET_IFNAME=lo   # then `shardrec doctor` again; see its rows host name and gloo"
    here = f"cd {shlex.quote(str(ROOT))} && {shlex.quote(sys.executable)}"
    return f"{here} -m train.doctor.selfcheck {device}   # shows the whole traceback"
