"""A direct file holds what was written to it, in writes of any size, also where the file system refuses them."""

import errno
import fcntl
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash

from train.checkpoint import direct_io
from train.checkpoint.direct_io import BLOCK_BYTES, DirectFile

CONTENT = np.random.default_rng(0).bytes(3 * BLOCK_BYTES + 12_345)


def written(path: Path, sizes: Iterator[int]) -> DirectFile:
    """The closed file, after writes of so many bytes as ``sizes`` says, until all of CONTENT is in."""
    file = DirectFile(path, lambda: None)
    with io.BufferedWriter(file) as stream:
        place = 0
        while place < len(CONTENT):
            size = next(sizes)
            stream.write(CONTENT[place : place + size])
            place += size
    return file


def assert_whole(path: Path, file: DirectFile) -> None:
    assert path.read_bytes() == CONTENT
    assert (file.size, file.sum()) == (len(CONTENT), xxhash.xxh3_64(CONTENT).hexdigest())


@pytest.mark.parametrize("largest", [1_000_000, 2 * BLOCK_BYTES, len(CONTENT)])
def test_it_holds_what_was_written(tmp_path: Path, largest: int):
    draw = np.random.default_rng(1)
    assert_whole(tmp_path / "f", written(tmp_path / "f", iter(lambda: int(draw.integers(1, largest + 1)), None)))


def test_what_is_asked_to_be_synced_is_written(tmp_path: Path):
    with DirectFile(tmp_path / "f", lambda: None) as file:
        file.write(b"abc")
        os.fsync(file.fileno())
        assert (tmp_path / "f").read_bytes() == b"abc"
        file.write(b"def")
    assert (tmp_path / "f").read_bytes() == b"abcdef"


def test_a_system_without_direct_files_writes_the_usual_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(direct_io, "_DIRECT", 0)
    assert_whole(tmp_path / "f", written(tmp_path / "f", iter([len(CONTENT)])))


@pytest.mark.parametrize("num_taken", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 5000])
def test_a_file_system_that_refuses_direct_writes_gets_the_rest_the_usual_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_taken: int
):
    """The first writes are taken, the last of them in part; a direct one after that is refused."""
    real, left = os.write, [num_taken]

    def refusing(descriptor: int, data: memoryview) -> int:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if not flags & direct_io._DIRECT:
            return real(descriptor, data)
        if not left[0]:
            raise OSError(errno.EINVAL, "Invalid argument")
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~direct_io._DIRECT)
        done = real(descriptor, data[: left[0]])
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        left[0] -= done
        return done

    monkeypatch.setattr(os, "write", refusing)
    assert_whole(tmp_path / "f", written(tmp_path / "f", iter([len(CONTENT)])))


def test_an_error_of_the_disk_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "f", iter([len(CONTENT)]))
