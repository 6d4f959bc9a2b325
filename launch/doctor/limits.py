"""Checks of what the system lets a run have: files, processes, memory, cores, and two settings of oneDNN."""

import os
import resource
from pathlib import Path

from configs.machine import GIB_PER_RANK, available_memory_gib, usable_cores
from configs.process_environment import BOUND_KERNEL_CACHES
from configs.schema import HardwareConfig
from launch.doctor.row import Row, doubtful, failed, good

GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
INFINIBAND = Path("/sys/class/infiniband")
RAISED_FILES = 65536
OWN_FILES = 256
"""Open files of a rank: libraries, logs, the store's parts."""
SOCKETS_PER_PEER = 4
"""One in each process group: training, stop signals, checkpoints; NCCL takes more."""
THREADS_PER_RANK = 256
"""torch, Arrow, Polars and OpenMP start pools as large as the machine."""
NCCL_SHARED_MEMORY_GIB = 0.5
"""NCCL's buffers between GPUs of one machine; Docker's 64 MiB do not hold them."""


def check_open_files(hardware: HardwareConfig, num_nodes: int) -> Row:
    """Whether a rank may hold a socket to every other rank of the job, and its files; ``hardware`` is a node's."""
    needed = OWN_FILES + SOCKETS_PER_PEER * (hardware.num_ranks * num_nodes - 1)
    return _limit_row("open files", resource.RLIMIT_NOFILE, needed, RAISED_FILES, "n")


def check_processes(hardware: HardwareConfig) -> Row:
    """Whether the ranks may start their threads, which count as processes."""
    return _limit_row("processes", resource.RLIMIT_NPROC, THREADS_PER_RANK * hardware.num_ranks, RAISED_FILES, "u")


def check_locked_memory() -> Row:
    """Whether InfiniBand, where there is one, may pin its buffers; TCP pins nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    found = _in_words(soft // 1024 if soft >= 0 else soft, " KiB")
    if soft == resource.RLIM_INFINITY:
        return good("locked memory", found)
    if not INFINIBAND.is_dir() or not any(INFINIBAND.iterdir()):
        return good("locked memory", f"{found}; no InfiniBand here, so nothing is pinned")
    fix = "ulimit -l unlimited" if hard == resource.RLIM_INFINITY else _raise_for_good("memlock", "unlimited")
    return failed("locked memory", f"{found}, and InfiniBand must pin its buffers", fix)


def check_shared_memory(hardware: HardwareConfig) -> Row:
    """Whether /dev/shm holds NCCL's buffers; ranks on the CPU do not use it."""
    name, is_used = "shared memory", hardware.device == "cuda" and hardware.num_ranks > 1
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError as error:
        fix = f"sudo mkdir -p {SHARED_MEMORY} && sudo mount -t tmpfs -o size=8G tmpfs {SHARED_MEMORY}"
        return (failed if is_used else doubtful)(name, f"{SHARED_MEMORY}: {error.strerror}", fix)
    size, free = found.f_blocks * found.f_frsize / GIB, found.f_bavail * found.f_frsize / GIB
    told = f"{SHARED_MEMORY}: {size:.1f} GiB, {free:.1f} free"
    if is_used and free < NCCL_SHARED_MEMORY_GIB:
        fix = f"sudo mount -o remount,size=8G {SHARED_MEMORY}   # in Docker: docker run --shm-size=8g"
        return failed(name, f"{told}; NCCL needs {NCCL_SHARED_MEMORY_GIB}", fix)
    return good(name, told)


def check_memory(hardware: HardwareConfig) -> Row:
    """Whether the ranks' libraries alone fit into what is available, within the container's or the job's limit."""
    total, free = available_memory_gib()
    needed = GIB_PER_RANK * hardware.num_ranks
    found = f"{total:.1f} GiB, {free:.1f} available; {hardware.num_ranks} ranks take {needed:.1f} before any table"
    if free >= needed:
        return good("memory", found)
    fewer = max(int(free / GIB_PER_RANK), 1)
    is_slurm = "SLURM_JOB_ID" in os.environ
    fix = f"shardrec train ... hardware.num_ranks={fewer}"
    return failed("memory", found, f"salloc --mem={int(needed * 2) + 1}G" if is_slurm else fix)


def check_cores(hardware: HardwareConfig) -> Row:
    """Whether each thread of each rank has a core."""
    cores, ranks, threads = usable_cores(), hardware.num_ranks, hardware.num_threads
    found = f"{cores} cores; {ranks} ranks x {threads} threads (hardware.num_ranks, .num_threads)"
    if ranks * threads <= cores:
        return good("cores, threads", found)
    fewer = f"hardware.num_ranks={min(ranks, cores)} hardware.num_threads={max(cores // min(ranks, cores), 1)}"
    return doubtful("cores, threads", f"{found} share them and slow each other down", f"shardrec train ... {fewer}")


def check_kernel_caches() -> Row:
    """Whether oneDNN's caches are bounded: unbounded they grow with every number of tokens (bfloat16 on a CPU)."""
    own = {name: os.environ[name] for name in BOUND_KERNEL_CACHES if name in os.environ}
    bounds = " ".join(f"{name}={number}" for name, number in BOUND_KERNEL_CACHES.items())
    if not own:
        return good("oneDNN caches", f"shardrec sets {bounds}; with torchrun by hand, export them")
    large = [f"{name}={value}" for name, value in own.items() if not value.isdecimal() or int(value) > 1000]
    if large:
        found = f"{' '.join(large)}: each number of tokens keeps its kernels, memory grows by 1.5 MiB a step in bf16"
        return doubtful("oneDNN caches", found, f"export {bounds}")
    return good("oneDNN caches", " ".join(f"{name}={value}" for name, value in own.items()))


def _limit_row(name: str, kind: int, needed: int, raised: int, flag: str) -> Row:
    soft, hard = resource.getrlimit(kind)
    found = f"{_in_words(soft)} (ulimit -{flag}), {needed} needed"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return good(name, found)
    wanted = max(raised, needed)
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return failed(name, found, f"ulimit -{flag} {wanted}")
    if hard >= needed:
        return failed(name, found, f"ulimit -{flag} {hard}")
    return failed(name, found, _raise_for_good({"n": "nofile", "u": "nproc"}[flag], str(wanted)))


def _raise_for_good(item: str, value: str) -> str:
    return f"echo '* - {item} {value}' | sudo tee -a /etc/security/limits.d/shardrec.conf   # then log in again"


def _in_words(limit: int, unit: str = "") -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}{unit}"
