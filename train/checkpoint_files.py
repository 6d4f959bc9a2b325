"""The files of a checkpoint: written with their size and CRC-32, and looked at again before they are read."""

import io
import json
import os
import sys
import threading
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemWriter

from train.progress import Progress

PROGRESS = "progress.json"
"""Written last: step, :class:`Progress`, and size and CRC-32 of every file of the checkpoint."""
BLOCK_BYTES = 2**24
"""Read and written at once: a block is summed while the processor's cache holds it."""
NICENESS = 10


class SummedWriter(FileSystemWriter):
    """DCP's writer that sums what it writes: reading a file back costs a third of writing it."""

    def __init__(self, folder: Path, beat: Callable[[], None]) -> None:
        """``beat`` is called after every block."""
        super().__init__(folder)
        self.fs: _SummedFiles = _SummedFiles(beat)

    def write_data(self, *plan: Any) -> Any:
        """As DCP's, without the sums that ``torch.save`` makes for nobody: they cost as much as the writing."""
        is_summed = torch.serialization.get_crc32_options()
        torch.serialization.set_crc32_options(False)
        try:
            return super().write_data(*plan)
        finally:
            torch.serialization.set_crc32_options(is_summed)

    def sums(self) -> dict[str, list[int]]:
        """Size and CRC-32 of every file that this rank has written, by name."""
        return self.fs.sums


class _SummedFiles(FileSystem):
    def __init__(self, beat: Callable[[], None]) -> None:
        self.sums: dict[str, list[int]] = {}
        self._beat = beat

    @contextmanager
    def create_stream(self, path: Any, mode: str) -> Generator[io.IOBase, None, None]:
        assert mode == "wb", "a writer writes"
        with Path(path).open(mode, buffering=0) as file:
            summed = _SummedFile(file, self._beat)
            with _Stream(summed) as stream:
                yield stream
        self.sums[Path(path).name] = [summed.size, summed.crc]

    def rename(self, path: Any, new_path: Any) -> None:
        super().rename(path, new_path)
        self.sums[Path(new_path).name] = self.sums.pop(Path(path).name)


class _Stream(io.BufferedWriter):
    def fileno(self) -> int:
        """DCP asks for it to sync the file, and would leave what is buffered out."""
        self.flush()
        return super().fileno()


class _SummedFile(io.RawIOBase):
    """Sums what is written to ``file``; what is larger than a stream's buffer comes here without a copy."""

    def __init__(self, file: Any, beat: Callable[[], None]) -> None:
        self.size = self.crc = 0
        self._file, self._beat = file, beat

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written: int = self._file.write(memoryview(data)[:BLOCK_BYTES])
        self.crc = zlib.crc32(memoryview(data)[:written], self.crc)
        self.size += written
        self._beat()
        return written

    def tell(self) -> int:
        return self.size

    def fileno(self) -> int:
        return int(self._file.fileno())


def damage_of(folder: Path, rank: int, num_ranks: int, beat: Callable[[], None]) -> list[str]:
    """What is wrong with the files of the checkpoint in ``folder``, of which each rank reads its share."""
    try:
        files = json.loads((folder / PROGRESS).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{PROGRESS}: {error}"]
    found = {name: _damage_of(folder / name, files[name], beat) for name in sorted(files)[rank::num_ranks]}
    return [f"{name} {damage}" for name, damage in found.items() if damage]


def read_progress(folder: Path) -> tuple[int, Progress]:
    """The step, and how far the run was."""
    document = json.loads((folder / PROGRESS).read_text())
    document.pop("files")
    return document.pop("step"), Progress(**document)


def write_politely() -> None:
    """Let the calling thread take the time that training leaves: a lower priority, where threads have their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _damage_of(path: Path, expected: list[int], beat: Callable[[], None]) -> str:
    try:
        if path.stat().st_size != expected[0]:
            return f"has {path.stat().st_size} bytes of {expected[0]}"
        return "" if _crc_of(path, beat) == expected[1] else "is not what was written"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _crc_of(path: Path, beat: Callable[[], None]) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            total = zlib.crc32(block, total)
            beat()
    return total
