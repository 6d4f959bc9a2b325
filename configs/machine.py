"""What this machine has for a run: cores, memory and GPUs, within the limits of its container. Needs no torch."""

import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
DEVICES = Path("/dev")
MAX_RANKS_ON_CPU = 8
"""More processes of one machine pay less than threads: each all-reduce waits for the slowest."""
GIB_PER_RANK = 0.5
"""What a rank holds before any table: libraries."""
_NO_LIMIT = 2**60
"""cgroup v1 says "unlimited" with a number as large as this."""


def available_memory_gib() -> tuple[float, float]:
    """Total and available memory in GiB: the machine's, or the smallest limit of the cgroups around this process."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    machine = {words[0].rstrip(":"): int(words[1]) / 2**20 for words in lines}
    total, free = machine["MemTotal"], machine.get("MemAvailable", machine["MemFree"])
    for group in _cgroups("memory"):
        limit = _number_in(group, "memory.max", "memory.limit_in_bytes")
        used = _number_in(group, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _NO_LIMIT:
            total, free = min(total, limit / GIB), min(free, max(limit - used, 0) / GIB)
    return total, free


def usable_cores() -> int:
    """Cores that this process may run on, within the quota of the cgroups around it."""
    cores = len(os.sched_getaffinity(0))
    for group in _cgroups("cpu"):
        quota, period = _quota_of(group)
        if quota and period:
            cores = min(cores, max(quota // period, 1))
    return cores


def num_gpus() -> int:
    """NVIDIA GPUs that this process may use, if torch was built for them; else 0."""
    if not torch_is_built_for_gpus() or not DEVICES.is_dir():
        return 0
    found = sum(bool(re.fullmatch(r"nvidia\d+", name)) for name in os.listdir(DEVICES))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else min(found, len([each for each in visible.split(",") if each.strip()]))


def torch_is_built_for_gpus() -> bool:
    """Whether both torch and fbgemm-gpu are, as their versions say."""
    try:
        return not any(version(name).endswith("+cpu") for name in ("torch", "fbgemm-gpu"))
    except PackageNotFoundError:
        return False


def suitable_ranks(device: str) -> int:
    """Processes of a run on this machine: one a GPU, or on a CPU one a core, at most eight and as memory allows."""
    if device == "cuda":
        return max(num_gpus(), 1)
    return max(min(usable_cores(), MAX_RANKS_ON_CPU, int(available_memory_gib()[0] / GIB_PER_RANK)), 1)


def suitable_threads(num_ranks: int) -> int:
    """Threads of each of ``num_ranks`` processes, so that together they fill the cores of this machine."""
    return max(usable_cores() // num_ranks, 1)


def suitable_prepare_gib() -> float:
    """Memory that prepare may hold: a quarter of the machine's, in steps of 0.25 GiB and at most 64 GiB."""
    return min(max(int(available_memory_gib()[0]) / 4, 0.25), 64.0)


def _quota_of(group: Path) -> tuple[int, int]:
    """Microseconds of a core, in so many microseconds; 0: no limit."""
    file = group / "cpu.max"
    if file.is_file():
        quota, _, period = file.read_text().strip().partition(" ")
        return (int(quota), int(period)) if quota.isdecimal() and period.isdecimal() else (0, 0)
    return _number_in(group, "cpu.cfs_quota_us") or 0, _number_in(group, "cpu.cfs_period_us") or 0


def _cgroups(controller: str) -> list[Path]:
    """This process's cgroup of ``controller``, version 2 or 1, and those around it; none where none is mounted."""
    file = Path("/proc/self/cgroup")
    lines = file.read_text().splitlines() if file.is_file() else []
    found: list[Path] = []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUP / controller if controllers else CGROUP
        path = root / own.strip("/")
        found += [path, *(parent for parent in path.parents if parent.is_relative_to(root))]
    return found


def _number_in(group: Path, *names: str) -> int | None:
    file = next((group / name for name in names if (group / name).is_file()), None)
    text = file.read_text().strip() if file else ""
    return int(text) if text.isdecimal() else None
