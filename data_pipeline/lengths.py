"""How many training events each user of a store has: scanned once, then kept beside the histories."""

import tempfile
import warnings
from pathlib import Path

import numpy as np

from configs.errors import DataError
from configs.schema import Split
from data_pipeline.manifest import Manifest
from data_pipeline.reader import HistoryReader
from data_pipeline.split import SplitRule, train_lengths


def training_lengths(store: str, manifest: Manifest, rule: SplitRule, reader: HistoryReader) -> np.ndarray:
    """Training events of every user under ``rule``, int32 [B], mapped from ``STORE/lengths`` where it is there.

    Otherwise one column of the whole store is read, on every rank that asks, and the file is written beside and
    renamed, so that ranks do not disturb each other. A store that cannot be written is scanned anew each time, with
    a warning. Raises :class:`DataError` for a file that is not of this store.
    """
    if not manifest.num_users:
        return np.zeros(0, np.int32)
    boundary = f"-{rule.valid_start_ms}" if rule.split is Split.GLOBAL_TIME else ""
    path = Path(store, "lengths", f"{rule.split.value}{boundary}-{manifest.fingerprint[:16]}.npy")
    if path.is_file():
        return _opened(path, manifest.num_users)
    found = [train_lengths(rule, offsets, timestamp) for offsets, timestamp in reader.times()]
    lengths = np.concatenate(found).astype(np.int32)
    try:
        _write_whole(path, lengths)
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error}); the store is scanned at each start", stacklevel=2)
    return lengths


def _opened(path: Path, num_users: int) -> np.ndarray:
    try:
        lengths = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it, it is made again") from error
    if lengths.dtype != np.int32 or lengths.shape != (num_users,):
        raise DataError(
            f"{path} holds {lengths.dtype} {lengths.shape}, the store has {num_users} users; delete it, it is made "
            f"again"
        )
    return lengths


def _write_whole(path: Path, lengths: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        np.save(file, lengths)
    partial = Path(file.name)
    partial.chmod(0o644)  # a temporary file is its owner's alone, a store is shared
    partial.replace(path)
