"""Energy that devices draw, by the counters that they have: NVML of a GPU, RAPL of a machine's processors."""

import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from models.collectives import Collectives

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"(intel|amd)-rapl:\d+")
"""A processor; ``intel-rapl:0:0`` is a part of one. AMD's are called intel-rapl as well."""
MICRO, MILLI = 1e-6, 1e-3


class EnergyMeter(Protocol):
    """Counts from its making; to be read once in some minutes, since the counters behind it start again at zero."""

    source: str
    """``nvml`` or ``rapl``."""

    def joules(self) -> float:
        """Drawn since the meter was made."""
        ...


def meter_of_all(collectives: Collectives, device: torch.device) -> tuple[EnergyMeter | None, int]:
    """This rank's :func:`meter_of`, and how many ranks share what the first of them counts; no meter where a rank
    has none. Collective."""
    meter = meter_of(device, dist.get_node_local_rank(0))
    num_meters = collectives.sum(torch.tensor([int(meter is not None)], device=device))
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if meter is None or int(num_meters) < collectives.world_size:
        return None, 1
    return meter, 1 if device.type == "cuda" else ranks_here


def meter_of(device: torch.device, local_rank: int) -> EnergyMeter | None:
    """That of this rank's GPU, or of the machine's processors, whose energy is the first rank's; None where there is
    none that this process may read."""
    if device.type == "cuda":
        return _nvml_meter(device)
    files = rapl_files()
    return RaplMeter(files if local_rank == 0 else []) if files else None


def rapl_files() -> list[Path]:
    """The counters of this machine's processors; none where one of them may not be read, as on most machines for
    anybody but root."""
    files = [folder / "energy_uj" for folder in sorted(POWERCAP.glob("*")) if _PACKAGE.fullmatch(folder.name)]
    try:
        for file in files:
            int(file.read_text())
    except (OSError, ValueError):
        return []
    return files


class RaplMeter:
    """Of whole processors, whoever used them."""

    source = "rapl"

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self._ranges = [int((file.parent / "max_energy_range_uj").read_text()) for file in files]
        self._last = [int(file.read_text()) for file in files]
        self._total_uj = 0
        self._lock = threading.Lock()

    def joules(self) -> float:
        """As :class:`EnergyMeter`."""
        with self._lock:
            now = [int(file.read_text()) for file in self._files]
            for value, last, most in zip(now, self._last, self._ranges, strict=True):
                self._total_uj += value - last if value >= last else value - last + most
            self._last = now
            return self._total_uj * MICRO


class NvmlMeter:
    """Of one GPU."""

    source = "nvml"

    def __init__(self, nvml: Any, handle: Any) -> None:
        """``nvml``: the module ``pynvml``."""
        self._nvml, self._handle = nvml, handle
        self._first_mj = self._last_mj = self._read_mj()

    def joules(self) -> float:
        """As :class:`EnergyMeter`; of a GPU that does not answer any more, what it last said."""
        with suppress(self._nvml.NVMLError):
            self._last_mj = self._read_mj()
        return (self._last_mj - self._first_mj) * MILLI

    def _read_mj(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def _nvml_meter(device: torch.device) -> NvmlMeter | None:
    """None where ``pynvml`` is not installed, or the GPU counts no energy, as a part of one."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return NvmlMeter(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except pynvml.NVMLError:
        return None
