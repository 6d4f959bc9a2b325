"""How many training events each user of a store has: scanned once, then kept beside the histories."""

import warnings
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import xxhash

from configs.atomic_files import write_atomically
from configs.errors import DataError
from configs.schema import Split
from data_pipeline.split import HeldOut, SplitRule, train_lengths, training_view
from data_pipeline.store.history_reader import HistoryReader, history_chunks
from data_pipeline.store.manifest import LENGTHS, Manifest, version_name
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of

_SUM_BYTES = 8
"""At the end of a file: xxh3 of all before it, int32 (little-endian) of each user."""


def training_lengths(store: str, manifest: Manifest, rule: SplitRule, reader: HistoryReader) -> np.ndarray:
    """Training events of every user under ``rule``, int32 [B]: those of ``STORE/lengths`` where that is there, mapped
    from a local file, read whole from an object.

    Otherwise one column of the whole store is read, on every rank that asks, and the file is written, whole before it
    has its name, so that ranks do not disturb each other. A store that cannot be written is scanned anew each time,
    with a warning, and so is one whose file is damaged.
    """
    if not manifest.num_users:
        return np.zeros(0, np.int32)
    boundary = f"-{rule.train_end_ms}" if rule.split is Split.GLOBAL_TIME else ""
    if rule.cold is not None:
        boundary = f"-{xxhash.xxh3_64_hexdigest(rule.cold.tobytes())}"
    if rule.held_out is HeldOut.TEST:
        boundary += "-with-valid"
    name = f"{version_name(manifest.version)}-{rule.split.value}{boundary}-{manifest.fingerprint[:16]}.int32"
    place = path_of(store) / LENGTHS / name
    if place.is_file() and (kept := _opened(place, manifest.num_users)) is not None:
        return kept
    if rule.cold is None:
        found = [train_lengths(rule, offsets, timestamp) for offsets, timestamp in reader.times()]
    else:
        views = (training_view(rule, chunk) for chunk in history_chunks(store, manifest))
        found = [np.diff(view.offsets) for view in views]
    lengths = np.concatenate(found).astype(np.int32)
    try:
        _write_whole(place, lengths)
    except (OSError, DataError) as error:
        warnings.warn(
            f"{place} cannot be written ({error}); the store is scanned at each start: every rank reads the "
            f"timestamps of all {manifest.num_events:,} events",
            stacklevel=2,
        )
    return lengths


def _opened(place: AnyPath, num_users: int) -> np.ndarray | None:
    """The lengths; None, with a warning, for a file that is damaged or of other users: it is made again."""
    content = memoryview(place.read_bytes() if isinstance(place, ObjectPath) else _mapped(place))
    if len(content) < _SUM_BYTES or xxhash.xxh3_64_digest(content[:-_SUM_BYTES]) != bytes(content[-_SUM_BYTES:]):
        warnings.warn(f"{place} is damaged; it is made again from the store's histories", stacklevel=3)
        return None
    lengths = np.frombuffer(content[:-_SUM_BYTES], np.dtype("<i4"))
    return lengths if len(lengths) == num_users else None


def _mapped(path: Path) -> bytes | mmap:
    if path.stat().st_size == 0:
        return b""
    with path.open("rb") as file:
        return mmap(file.fileno(), 0, access=ACCESS_READ)


def _content_of(lengths: np.ndarray) -> bytes:
    content = lengths.astype("<i4").tobytes()
    return content + xxhash.xxh3_64_digest(content)


def _write_whole(place: AnyPath, lengths: np.ndarray) -> None:
    if isinstance(place, ObjectPath):
        if place.url.startswith("hdfs://"):  # other ranks would see a file that grows, and refuse it
            raise OSError("a file on HDFS is there before it is whole")
        place.write_bytes(_content_of(lengths))
        return
    place.parent.mkdir(exist_ok=True)
    write_atomically(place, _content_of(lengths))
