"""How many training events each user of a store has: scanned once, then kept beside the histories."""

import io
import tempfile
import warnings
from pathlib import Path

import numpy as np

from configs.errors import DataError
from configs.schema import Split
from data_pipeline.split import SplitRule, train_lengths
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of


def training_lengths(store: str, manifest: Manifest, rule: SplitRule, reader: HistoryReader) -> np.ndarray:
    """Training events of every user under ``rule``, int32 [B]: those of ``STORE/lengths`` where that is there, mapped
    from a local file, read whole from an object.

    Otherwise one column of the whole store is read, on every rank that asks, and the file is written, whole before it
    has its name, so that ranks do not disturb each other. A store that cannot be written is scanned anew each time,
    with a warning. Raises :class:`DataError` for a file that is not of this store.
    """
    if not manifest.num_users:
        return np.zeros(0, np.int32)
    boundary = f"-{rule.valid_start_ms}" if rule.split is Split.GLOBAL_TIME else ""
    place = path_of(store) / "lengths" / f"{rule.split.value}{boundary}-{manifest.fingerprint[:16]}.npy"
    if place.is_file():
        return _opened(place, manifest.num_users)
    found = [train_lengths(rule, offsets, timestamp) for offsets, timestamp in reader.times()]
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


def _opened(place: AnyPath, num_users: int) -> np.ndarray:
    content = place if isinstance(place, Path) else io.BytesIO(place.read_bytes())
    try:
        lengths = np.load(content, mmap_mode="r" if isinstance(place, Path) else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{place} cannot be read ({error}); delete it, it is made again") from error
    if lengths.dtype != np.int32 or lengths.shape != (num_users,):
        raise DataError(
            f"{place} holds {lengths.dtype} {lengths.shape}, the store has {num_users} users; delete it, it is made "
            f"again"
        )
    return lengths


def _write_whole(place: AnyPath, lengths: np.ndarray) -> None:
    if isinstance(place, ObjectPath):
        return _send_whole(place, lengths)
    place.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".partial", delete=False) as file:
        np.save(file, lengths)
    partial = Path(file.name)
    partial.chmod(0o644)  # a temporary file is its owner's alone, a store is shared
    partial.replace(place)


def _send_whole(place: ObjectPath, lengths: np.ndarray) -> None:
    if place.url.startswith("hdfs://"):  # other ranks would see a file that grows, and refuse it
        raise OSError("a file on HDFS is there before it is whole")
    content = io.BytesIO()
    np.save(content, lengths)
    place.write_bytes(content.getvalue())
