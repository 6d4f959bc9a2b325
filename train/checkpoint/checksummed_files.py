"""What makes a checkpoint whole: ``progress.json`` with size and sum of every file, which are looked at before any is
read."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xxhash

from configs.atomic_files import json_with_sum, parse_json_with_sum
from configs.errors import DataError
from train.progress import PROGRESS, RunProgress
from train.run_dir.checkpoint_folder import is_checkpoint_file
from train.run_dir.remote_copy import Files

FORMAT_VERSION = 2
"""1 was torch's own format, whose list of tensors is a pickle."""
READ_BYTES = 2**24
"""Read at once."""
NICENESS = 10


@dataclass(slots=True)
class CheckpointRecord:
    """``progress.json``, read."""

    step: int
    progress: RunProgress
    files: Files


def record_text(step: int, progress: RunProgress, files: Files) -> str:
    """``progress.json`` of a checkpoint."""
    return json_with_sum({"format_version": FORMAT_VERSION, "step": step, **asdict(progress), "files": files})


def parse_record(text: str, shown: object) -> CheckpointRecord:
    """What :func:`record_text` wrote; :class:`DataError` where a bit of it is another."""
    document = parse_json_with_sum(text, shown)
    version = document.pop("format_version", 1)
    if version != FORMAT_VERSION:
        raise DataError(f"{shown} has format {version}, this version reads {FORMAT_VERSION}")
    try:
        step, files = int(document.pop("step")), _checked_files(document.pop("files"))
        if (ndcg := document.pop("best_ndcg", None)) is not None:  # of the versions that knew no other metric
            document["best_value"] = ndcg if ndcg >= 0 else None
        document.setdefault("trained_device_s", document.get("device_s", 0.0))  # of those that counted no phases
        return CheckpointRecord(step, RunProgress(**document), files)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{shown} was written by another version: {error}") from error


def damage_of(folder: Path, files: Files, rank: int, num_ranks: int, heartbeat: Callable[[], None]) -> list[str]:
    """Which of ``files`` in ``folder`` do not fit their size and sum; each rank reads its share of them."""
    found = {name: _damage_of(folder / name, files[name], heartbeat) for name in sorted(files)[rank::num_ranks]}
    return [f"{name} {damage}" for name, damage in found.items() if damage]


def sum_of(content: bytes) -> str:
    """XXH3-64 in hexadecimal, as of every file of a checkpoint."""
    return str(xxhash.xxh3_64(content).hexdigest())


def write_politely() -> None:
    """Let the calling thread take the time that training leaves: a lower priority, where threads have their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _checked_files(files: Any) -> Files:
    """A folder from somebody else must not send us to files outside of it."""
    strange = [name for name in files if not is_checkpoint_file(name) or name == PROGRESS]
    if strange:
        raise ValueError(f"{strange[0]!r} is no file of a checkpoint")
    return dict(files)


def _damage_of(path: Path, expected: list[int | str], heartbeat: Callable[[], None]) -> str:
    try:
        if path.stat().st_size != expected[0]:
            return f"has {path.stat().st_size} bytes of {expected[0]}"
        return "" if _sum_of(path, heartbeat) == expected[1] else "is not what was written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _sum_of(path: Path, heartbeat: Callable[[], None]) -> str:
    total = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            total.update(block)
            heartbeat()
    return str(total.hexdigest())
