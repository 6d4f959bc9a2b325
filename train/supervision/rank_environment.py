"""What the launcher asks of a rank by environment variables: a log of its own, and processors of its own."""

import os
import sys
from pathlib import Path
from typing import Any

from configs.run_dir import BIND_RANKS, RANK_LOG
from configs.terminal import Tee

NUMA_NODES = Path("/sys/devices/system/node")
PCI_DEVICES = Path("/sys/bus/pci/devices")


def copy_output() -> None:
    """Add what this rank prints to its own file, where the launcher names one (``RUN/logs/rank-3.log``)."""
    pattern = os.environ.get(RANK_LOG, "")
    rank = os.environ.get("RANK")
    if not pattern or rank is None:
        return
    path = Path(pattern.replace("{rank}", rank))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("a", encoding="utf-8", errors="replace")
    except OSError as error:
        print(f"rank {rank} has no log: {path}: {error.strerror}", file=sys.stderr, flush=True)
        return
    sys.stdout = Tee(sys.stdout, log)
    sys.stderr = Tee(sys.stderr, log)


def bind_processors() -> None:
    """Pin this rank, and the threads that it has already, to its share of the node's processors.

    ``cores``: equal parts of those that the node's ranks may use. ``numa``: those of the NUMA node of the rank's GPU,
    shared with the other ranks there; without a GPU the ranks are spread over the NUMA nodes in order.
    """
    how, rank, num_ranks = os.environ.get(BIND_RANKS, "none"), _number("LOCAL_RANK"), _number("LOCAL_WORLD_SIZE")
    if how == "none" or rank is None or num_ranks is None:
        return
    usable = sorted(os.sched_getaffinity(0))
    own = share_of(usable, rank, num_ranks) if how == "cores" else _beside_gpu(usable, rank, num_ranks)
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), own)


def share_of(processors: list[int], rank: int, num_ranks: int) -> list[int]:
    """The part of ``rank`` of ``processors``: equal parts in order; ranks share one where there are too few."""
    start, end = rank * len(processors) // num_ranks, (rank + 1) * len(processors) // num_ranks
    return processors[start : max(end, start + 1)]


def _beside_gpu(usable: list[int], rank: int, num_ranks: int) -> list[int]:
    nodes = _numa_nodes(usable)
    if len(nodes) < 2:
        return usable
    node = _numa_node_of_gpu(rank)
    return nodes[node] if node in nodes else nodes[share_of(sorted(nodes), rank, num_ranks)[0]]


def _numa_nodes(usable: list[int]) -> dict[int, list[int]]:
    """The usable processors of each NUMA node that has some."""
    found = {}
    for folder in NUMA_NODES.glob("node[0-9]*"):
        processors = sorted(numbers_in((folder / "cpulist").read_text()) & set(usable))
        if processors:
            found[int(folder.name.removeprefix("node"))] = processors
    return found


def numbers_in(ranges: str) -> set[int]:
    """``0-2,5`` -> ``{0, 1, 2, 5}``."""
    found: set[int] = set()
    for part in filter(None, ranges.strip().split(",")):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def _numa_node_of_gpu(rank: int) -> int | None:
    import torch

    if not torch.cuda.is_available() or rank >= torch.cuda.device_count():
        return None
    device: Any = torch.cuda.get_device_properties(rank)
    address = f"{device.pci_domain_id:04x}:{device.pci_bus_id:02x}:{device.pci_device_id:02x}.0"
    file = PCI_DEVICES / address / "numa_node"
    return int(file.read_text()) if file.is_file() else None


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else None
