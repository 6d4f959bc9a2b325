"""Where a rank is: what its threads run, which collective they are in, and how many collectives it has begun."""

import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch.distributed import distributed_c10d

LIBRARIES = {"torch", "torchrec", "fbgemm_gpu", *sys.stdlib_module_names}
EXCHANGES = {"torchrec.distributed.comm_ops", "torchrec.distributed.dist_data"}
"""TorchRec's modules that call collectives of C++."""
EXCHANGE = "an exchange of table rows"
"""The name of what they do, whose functions say little to a person (``_wait_impl``)."""
ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT_THREAD = "checkpoint"
"""Begins the name of the thread that writes checkpoints."""


@dataclass(slots=True)
class CodeLocation:
    """What a thread is in: ``code``, ours or a user's, such as ``train/distributed/collectives.py:sum``, and the
    ``collective`` that it
    called, such as ``all_reduce``; empty where there is none, and for a wait inside C++, as DDP's in backward."""

    code: str = ""
    collective: str = ""

    def __str__(self) -> str:
        return f"{self.collective} ({self.code})" if self.collective else self.code or "code of a library"


@dataclass(slots=True)
class RankStatus:
    """What a rank tells the others of itself."""

    location: CodeLocation
    checkpoint_location: CodeLocation
    """Of the thread that writes checkpoints; empty where it has nothing to do."""
    num_collectives: dict[str, int]
    """Begun since the start, by the name of their process group; every member of a group begins the same ones."""
    num_sent: int = 0
    """Reports before this one."""
    num_heartbeats: int = 0
    """Grows with work that is done without collectives."""
    step: int = 0
    process: list[int | str] = field(default_factory=list)
    """Machine, process id, and the time at which it was started: an id alone is given again."""
    has_ended: bool = False

    def is_moved_from(self, earlier: "RankStatus") -> bool:
        """Whether the rank has got on since ``earlier``: an endless loop changes its place and does not get on."""
        return (self.num_collectives, self.num_heartbeats, self.step) != (
            earlier.num_collectives,
            earlier.num_heartbeats,
            earlier.step,
        )


def current_status(num_sent: int, num_heartbeats: int, step: int) -> RankStatus:
    """The report of this process; may be called from any thread."""
    frames = sys._current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    of_checkpoint = [frame for ident, frame in frames.items() if names.get(ident, "").startswith(CHECKPOINT_THREAD)]
    return RankStatus(
        location=locate(frames.get(threading.main_thread().ident or 0)),
        checkpoint_location=locate(of_checkpoint[0] if of_checkpoint else None),
        num_collectives=_num_collectives(),
        num_sent=num_sent,
        num_heartbeats=num_heartbeats,
        step=step,
        process=process_of(os.getpid()),
    )


def locate(frame: FrameType | None) -> CodeLocation:
    """The innermost code that is no library's, and the collective it called."""
    inner: list[FrameType] = []
    while frame is not None and _package_of(frame) in LIBRARIES:
        inner.append(frame)
        frame = frame.f_back
    if frame is None:
        return CodeLocation()
    code = f"{_short(frame.f_code.co_filename)}:{frame.f_code.co_name}"
    own = [each.f_code.co_name for each in inner if _module_of(each) == distributed_c10d.__name__]
    is_exchange = any(_module_of(each) in EXCHANGES for each in inner)
    return CodeLocation(
        code, own[-1] if own else EXCHANGE if is_exchange else ""
    )  # what was called, not what that calls


def process_of(number: int) -> list[int | str]:
    """Machine, id and start of a process of this machine; without the start where it is gone."""
    stat = Path(f"/proc/{number}/stat")
    started = stat.read_text().rpartition(")")[2].split()[19:20] if stat.is_file() else []
    return [os.uname().nodename, number, *started]


def _num_collectives() -> dict[str, int]:
    groups: list[tuple[Any, str]] = list(distributed_c10d._world.pg_names.items())  # also those that TorchRec made
    return {name: group._get_sequence_number_for_group() for group, name in groups}


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _package_of(frame: FrameType) -> str:
    return _module_of(frame).partition(".")[0]


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-2:]))
