"""Sizes and sums of a store's files: a file whose bytes are not those that were written is never read as data."""

from dataclasses import dataclass
from pathlib import Path

import xxhash

from configs.errors import DataError
from data_pipeline.store.paths import AnyPath

_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class FileSum:
    """What a manifest says of a file."""

    bytes: int
    xxh3: str
    """64 bits, hex, of the whole file."""


def sum_of(path: AnyPath) -> FileSum:
    """Read ``path`` once; ``OSError`` where that fails."""
    found, size = xxhash.xxh3_64(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            size += len(chunk)
    return FileSum(size, found.hexdigest())


def check_size(path: AnyPath, num_bytes: int, expected: FileSum | None) -> None:
    """Raise :class:`DataError` for a file that is shorter or longer than it was written."""
    if expected is not None and num_bytes != expected.bytes:
        raise damaged(path, f"it has {num_bytes:,} bytes, {expected.bytes:,} were written")


def check_sum(path: AnyPath, expected: FileSum | None) -> None:
    """Read a file and raise :class:`DataError` where its bytes are not those that were written."""
    if expected is None:
        return
    try:
        found = sum_of(path)
    except OSError as error:
        raise damaged(path, str(error)) from error
    check_size(path, found.bytes, expected)
    if found != expected:
        raise damaged(path, f"its bytes have the sum {found.xxh3}, those that were written {expected.xxh3}")


def checked_bytes(path: AnyPath, expected: FileSum | None) -> bytes:
    """The content of a small file; :class:`DataError` where it is missing or not what was written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise damaged(path, str(error)) from error
    check_size(path, len(content), expected)
    if expected is not None and xxhash.xxh3_64_hexdigest(content) != expected.xxh3:
        raise damaged(path, "its bytes do not have the sum that the manifest lists")
    return content


def damaged(path: AnyPath, reason: str) -> DataError:
    """The error for a file of a store that cannot be believed."""
    return DataError(
        f"{path} is damaged or missing: {reason}; put it back from a copy, or prepare into another data.store"
    )


def files_below(folder: Path) -> dict[str, Path]:
    """The files below a local folder by their names from there, in order; links are no files."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path for path in found}
