"""Text files of a log behind a URL, as local copies: Polars streams text from disk, Parquet is read by ranges."""

import hashlib
import lzma
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from configs.errors import FULL_DISK, DataError
from configs.schema import DataConfig
from configs.schema.source import Layout
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.file_view import FileView
from data_pipeline.prepare.read.formats import file_layout_of
from data_pipeline.store.paths import AnyPath, ObjectPath

_COPY_BYTES = 8 * 2**20


@contextmanager
def local_text(
    places: Sequence[AnyPath], config: DataConfig, progress: ProgressReporter, views: Sequence[FileView] | None = None
) -> Iterator[list[AnyPath]]:
    """``places``, those of text behind URLs or packed as a whole (by ``views``) replaced by plain copies in
    ``data.spill_dir``, or else beside the store.

    The copies go when the block ends; those of a killed prepare are used again where the objects are the same.
    A :class:`DataError` of the block names the URL where it named a copy.
    """
    folder, copies, compressions = _folder_of(config), dict[AnyPath, Path](), dict[AnyPath, str]()
    for place, view in zip(places, views or [FileView() for _ in places], strict=True):
        is_text = file_layout_of(place, view.source(config.source)) is not Layout.PARQUET
        if is_text and (isinstance(place, ObjectPath) or view.compression):
            name = place.name.removesuffix(place.suffix) if view.compression else place.name
            copies[place], compressions[place] = folder / f"{_digest(str(place))}-{name}", view.compression
    try:
        for place, copy in copies.items():
            if compressions[place]:
                _unpack(place, copy, compressions[place], progress)
            elif isinstance(place, ObjectPath):
                _copy(place, copy, progress)
        yield [copies.get(place, place) for place in places]
    except DataError as error:
        message = str(error)
        for place, copy in copies.items():
            message = message.replace(str(copy), str(place))
        if message == str(error):
            raise
        raise DataError(message) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(place: ObjectPath, copy: Path, progress: ProgressReporter) -> None:
    there = place.stat()
    try:
        found = copy.stat() if copy.is_file() else None
        if found is None or (found.st_size, found.st_mtime_ns) != (there.st_size, there.st_mtime_ns):
            progress.say(f"copying {place} ({there.st_size:,} bytes)")
            place.fetch(copy)
    except OSError as error:
        raise DataError(f"{place} cannot be copied to {copy}: {error}; make room, or set data.spill_dir") from error


def _unpack(place: AnyPath, copy: Path, compression: str, progress: ProgressReporter) -> None:
    """Write what a packed file holds; a copy that is there is of an ended prepare, and of the same name alone."""
    progress.say(f"unpacking {place} ({place.stat().st_size:,} bytes, {compression})")
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        with place.open("rb") as packed, copy.open("wb") as plain:
            if compression == "xz":
                with lzma.open(cast("IO[bytes]", packed)) as stream:
                    shutil.copyfileobj(stream, plain, _COPY_BYTES)
            else:
                with pa.input_stream(pa.PythonFile(packed), compression=compression) as stream:
                    shutil.copyfileobj(stream, plain, _COPY_BYTES)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise DataError(
                f"{place} cannot be unpacked to {copy}: {error}; make room, or set data.spill_dir"
            ) from error
        raise DataError(
            f"{place} cannot be unpacked by {compression}: {error}; fix the file, or move it out of data.log"
        ) from error
    except (EOFError, lzma.LZMAError, pa.ArrowException) as error:
        raise DataError(
            f"{place} cannot be unpacked by {compression}: {error}; fix the file, or move it out of data.log"
        ) from error


def _folder_of(config: DataConfig) -> Path:
    store = Path(config.store)
    return Path(config.spill_dir or store.parent) / f"{store.name}.log-{_digest(str(store.absolute()))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
