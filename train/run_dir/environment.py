"""``environment.json``: what each session of a run ran on, so that a result can be made again. Without torch."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from configs.atomic_files import write_atomically
from configs.schema import HardwareConfig

ENVIRONMENT = "environment.json"
LIBRARIES = (
    *("torch", "torchrec", "fbgemm-gpu", "fbgemm-gpu-cpu", "tensordict", "triton", "numpy", "polars", "pyarrow"),
    *("hydra-core", "omegaconf", "safetensors", "tensorboard", "xxhash"),
)
"""What computes, reads or configures; those that are installed are recorded."""
ROOT = Path(__file__).resolve().parents[2]


def record_session(folder: Path, hardware: HardwareConfig, world_size: int) -> None:
    """Add this session to the list in ``folder``; one process of a session. Raises :class:`OSError`.

    What was there is kept, also where it is no list: an older version wrote one session alone.
    """
    path = folder / ENVIRONMENT
    sessions = _sessions(path) if path.exists() else []
    write_atomically(path, json.dumps([*sessions, session(hardware, world_size)], indent=2) + "\n")


def session(hardware: HardwareConfig, world_size: int) -> dict[str, Any]:
    """This process's machine, versions and time."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "shardrec": _version_of("shardrec"),
        "commit": _commit(),
        "python": platform.python_version(),
        "os": platform.platform(),
        "machine": platform.machine(),
        "hostname": platform.node(),
        "cpu": _cpu_model(),
        "num_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": _devices(hardware),
        "world_size": world_size,
        "num_threads": hardware.num_threads,
        "versions": {name: found for name in LIBRARIES if (found := _version_of(name))},
    }


def _sessions(path: Path) -> list[Any]:
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        content = json.loads(text)
    except ValueError:
        return [{"unreadable": text}]
    return content if isinstance(content, list) else [content]


def _version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _devices(hardware: HardwareConfig) -> list[str]:
    """Names of this machine's GPUs where the run uses them, with CUDA's version; a rank has torch imported."""
    torch = sys.modules.get("torch")
    if hardware.device != "cuda" or torch is None:
        return [hardware.device]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [*names, f"CUDA {torch.version.cuda}"]


def _commit() -> str:
    """The commit of this code, with ``-dirty`` where it was changed since; empty where it is no checkout of ours."""
    try:
        if _git("rev-parse", "--show-toplevel") != str(ROOT):
            return ""  # installed below somebody else's repository
        return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
