"""Text files of a log behind a URL, as local copies: Polars streams text from disk, Parquet is read by ranges."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from configs.errors import DataError
from configs.schema import DataConfig
from configs.schema.source import Layout
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.formats import file_layout_of
from data_pipeline.store.paths import AnyPath, ObjectPath


@contextmanager
def local_text(places: Sequence[AnyPath], config: DataConfig, progress: ProgressReporter) -> Iterator[list[AnyPath]]:
    """``places``, those of text behind URLs replaced by copies in ``data.spill_dir``, or else beside the store.

    The copies go when the block ends; those of a killed prepare are used again where the objects are the same.
    A :class:`DataError` of the block names the URL where it named a copy.
    """
    text = [each for each in places if isinstance(each, ObjectPath)]
    text = [each for each in text if file_layout_of(each, config.source) is not Layout.PARQUET]
    folder = _folder_of(config)
    copies = {place: folder / f"{_digest(place.url)}-{place.name}" for place in text}
    try:
        for place, copy in copies.items():
            _copy(place, copy, progress)
        yield [copies[place] if isinstance(place, ObjectPath) and place in copies else place for place in places]
    except DataError as error:
        message = str(error)
        for place, copy in copies.items():
            message = message.replace(str(copy), place.url)
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


def _folder_of(config: DataConfig) -> Path:
    store = Path(config.store)
    return Path(config.spill_dir or store.parent) / f"{store.name}.log-{_digest(str(store.absolute()))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
