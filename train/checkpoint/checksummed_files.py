"""The files of a checkpoint: written with their size and sum, and looked at again before they are read."""

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter

from train.checkpoint.direct_io import DirectFile
from train.progress import PROGRESS, RunProgress

READ_BYTES = 2**24
"""Read at once."""
NICENESS = 10


class SummedWriter(FileSystemWriter):
    """DCP's writer that sums what it writes: reading a file back costs a third of writing it."""

    def __init__(self, folder: Path, heartbeat: Callable[[], None]) -> None:
        """``heartbeat`` is called after every block."""
        super().__init__(folder)
        self.fs: _SummedFiles = _SummedFiles(heartbeat)

    def write_data(self, *plan: Any) -> Any:
        """As DCP's, without the sums that ``torch.save`` makes for nobody: they cost as much as the writing."""
        is_summed = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)
        try:
            return super().write_data(*plan)
        finally:
            torch.serialization.set_crc32_options(is_summed)

    def sums(self) -> dict[str, list[int | str]]:
        """Size and XXH3-64 of every file that this rank has written, by name."""
        return self.fs.sums


class _SummedFiles(FileSystem):
    def __init__(self, heartbeat: Callable[[], None]) -> None:
        self.sums: dict[str, list[int | str]] = {}
        self._heartbeat = heartbeat

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[io.IOBase, None, None]:
        assert mode == "wb", "a writer writes"
        file = DirectFile(Path(path), self._heartbeat)
        with _Stream(file) as stream:
            yield stream
        self.sums[Path(path).name] = [file.size, file.sum()]

    def rename(self, path: Any, new_path: Any) -> None:
        super().rename(path, new_path)
        self.sums[Path(new_path).name] = self.sums.pop(Path(path).name)


class _Stream(io.BufferedWriter):
    def fileno(self) -> int:
        """DCP asks for it to sync the file, and would leave what is buffered out."""
        self.flush()
        return super().fileno()


def damage_of(folder: Path, rank: int, num_ranks: int, heartbeat: Callable[[], None]) -> list[str]:
    """What is wrong with the files of the checkpoint in ``folder``, of which each rank reads its share."""
    try:
        files = json.loads((folder / PROGRESS).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{PROGRESS}: {error}"]
    found = {name: _damage_of(folder / name, files[name], heartbeat) for name in sorted(files)[rank::num_ranks]}
    return [f"{name} {damage}" for name, damage in found.items() if damage]


def read_progress(folder: Path) -> tuple[int, RunProgress]:
    """The step, and how far the run was."""
    document = json.loads((folder / PROGRESS).read_text())
    document.pop("files")
    return document.pop("step"), RunProgress(**document)


def write_politely() -> None:
    """Let the calling thread take the time that training leaves: a lower priority, where threads have their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


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
