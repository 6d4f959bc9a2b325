"""Fair timing: variants run in turn, compared pair by pair, recorded with the machine and the commit."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy
import pyarrow
import torch

from configs.schema import HardwareConfig

RESULTS = Path("benchmarks", "results")
"""Below the current folder: where the package is installed is no place for records."""
REPOSITORY = Path(__file__).parents[1]


@dataclass(slots=True)
class Spread:
    """The median of several runs, with the smallest and the largest."""

    median: float
    low: float
    high: float
    runs: list[float]

    def __str__(self) -> str:
        return f"{self.median:,.4g} ({self.low:,.4g} to {self.high:,.4g})"


def spread_of(runs: list[float]) -> Spread:
    """Summary of ``runs``, of which there is at least one."""
    return Spread(statistics.median(runs), min(runs), max(runs), runs)


def interleaved(variants: Mapping[str, Callable[[], float]], num_rounds: int) -> dict[str, list[float]]:
    """What each variant returns in each of ``num_rounds`` rounds, after one round that is not counted.

    Every round runs every variant once, in alternating order, so that a machine that slows down slows all of them.
    """
    figures: dict[str, list[float]] = {name: [] for name in variants}
    for round_index in range(num_rounds + 1):
        names = list(variants) if round_index % 2 else list(variants)[::-1]
        for name in names:
            figure = variants[name]()
            if round_index:
                figures[name].append(figure)
    return figures


def paired_ratio(numerators: list[float], denominators: list[float]) -> Spread:
    """Ratio of two variants within each round."""
    return spread_of([above / below for above, below in zip(numerators, denominators, strict=True)])


def seconds_of(function: Callable[[], object]) -> float:
    """Wall time of one call, in seconds; what a GPU still has to do of it included."""
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def record_name(benchmark: str, hardware: HardwareConfig) -> str:
    """``benchmark``, and on another device than a CPU which one it was."""
    return benchmark if hardware.device == "cpu" else f"{benchmark}_{hardware.name}"


def write_result(name: str, overrides: list[str], figures: Mapping[str, Spread], notes: Mapping[str, object]) -> Path:
    """Print ``figures``; write them, with ``notes`` and the machine, to ``benchmarks/results/NAME.json``."""
    record = {
        "benchmark": name,
        "overrides": overrides,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "commit": commit(),
        "notes": dict(notes),
        "figures": {key: asdict(spread) for key, spread in figures.items()},
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for key, spread in figures.items():
        print(f"{key:40s} {spread}")
    print(f"written to {path}")
    return path


def machine() -> dict[str, object]:
    """The processor, its cores and load, the accelerators and the versions that the figures hang on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "accelerators": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "pyarrow": pyarrow.__version__,
        "torch": torch.__version__,
    }


def commit() -> dict[str, object]:
    """The commit of this repository and whether files differ from it.

    Records are no difference: they are what benchmarks write. A copy without its history, as in an image of a
    container, is of the commit that ``SHARDREC_COMMIT`` names.
    """
    if told := os.environ.get("SHARDREC_COMMIT"):
        return {"id": told, "is_clean": None}
    head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return {"id": head or "unknown", "is_clean": changes == "" if head else None}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if sys.platform == "linux" else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
