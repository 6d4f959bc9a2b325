"""Which collectives a rank took part in, from a profile: how many, how many bytes, how long they were under way."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

BYTES = {"float": 4, "double": 8, "long int": 8, "int": 4, "c10::BFloat16": 2, "c10::Half": 2, "bool": 1}
"""Of a profile's names of types; ``unsigned char`` and its like are the rest, of one byte."""
BACKENDS = ("gloo:", "nccl:")
"""What the names of collectives begin with in a profile, those of DDP and of TorchRec included."""


@dataclass(slots=True)
class Collective:
    """All calls of one kind; ``bytes``: what this rank brings to them."""

    calls: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Wall time from the start of each call to its end, some of it beside other work."""


def profiled(action: Callable[[], object]) -> dict[str, Collective]:
    """Run ``action`` under torch's profiler: its collectives by kind, such as ``all_reduce``."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        action()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        return collectives_of(json.loads(path.read_text(encoding="utf-8"))["traceEvents"])


def collectives_of(events: list[dict[str, Any]]) -> dict[str, Collective]:
    """The collectives among the ``traceEvents`` of a profile."""
    found: dict[str, Collective] = {}
    for event in events:
        name = str(event.get("name", ""))
        backend = next((each for each in BACKENDS if name.startswith(each)), None)
        if backend is None or event.get("ph") != "X":
            continue
        kind = found.setdefault(name.removeprefix(backend), Collective())
        kind.calls += 1
        kind.bytes += _input_bytes(event.get("args", {}))
        kind.seconds += event["dur"] / 1e6
    return found


def _input_bytes(arguments: dict[str, Any]) -> int:
    shapes, types = arguments.get("Input Dims", []), arguments.get("Input type", [])
    return sum(prod(shape) * BYTES.get(dtype, 1) for shape, dtype in zip(shapes, types, strict=False) if dtype)
