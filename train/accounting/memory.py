"""The most memory that a rank has held."""

from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_memory_bytes(device: torch.device) -> int:
    """Of the GPU, as torch has taken it; on a CPU what the process held at most, libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
