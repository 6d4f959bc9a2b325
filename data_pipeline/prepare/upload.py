"""A store to a URL: made on a local disk, then sent, its manifest last; without a manifest it is no store."""

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.provenance import FILE, provenance_of, saved_provenance
from data_pipeline.prepare.read.sources import find_log_files
from data_pipeline.store.manifest import Manifest, load_manifest
from data_pipeline.store.paths import ObjectPath

_MANIFEST = "manifest.json"
_OURS = ("items.parquet", FILE, "histories/part-*.parquet", "quarantine/part-*.parquet")
_FILES_AT_ONCE = 4


def prepare_and_upload(
    config: DataConfig, make: Callable[[DataConfig], Manifest], progress: ProgressReporter
) -> Manifest:
    """The store at the URL ``config.store``, made by ``make`` in ``config.spill_dir`` first, unless it is there.

    Objects cannot be exchanged in one step, so that a store of another log is refused and not replaced, and nothing
    is added to one. What an interrupted sending has left is removed; the same command sends again what is made.
    """
    target = ObjectPath(config.store.rstrip("/"))
    if config.append:
        raise ConfigError(
            f"data.append=true does not go with data.store={config.store}: append to a local store, then send it "
            f"to a new URL"
        )
    if not config.spill_dir:
        raise ConfigError(
            f"data.store={config.store} is made on a local disk first; set data.spill_dir to a folder with room for "
            f"the log's events and the store"
        )
    if (target / _MANIFEST).is_file():
        return _kept(config, target)
    _refuse_others(target)
    digest = hashlib.sha256(target.url.encode()).hexdigest()[:12]
    local = Path(config.spill_dir) / f"{target.name}.sent-{digest}"
    manifest = make(replace(config, store=str(local)))
    _send(local, target, progress)
    shutil.rmtree(local)
    return manifest


def _kept(config: DataConfig, target: ObjectPath) -> Manifest:
    saved = saved_provenance(target)
    if saved is None or not saved.is_same_build(provenance_of(config, find_log_files(config.log, config.source))):
        raise DataError(
            f"data.store={target} is a store of other files or options than data.log={config.log}; a store behind a "
            f"URL is not replaced, since readers may be at it: choose another URL, or remove it first"
        )
    return load_manifest(target.url)


def _refuse_others(target: ObjectPath) -> None:
    """Refuse a place where somebody's files are; what an interrupted sending has left is none of them."""
    for place in target.files_below():
        name = place.url[len(target.url) + 1 :]
        if not any(fnmatchcase(name, pattern) for pattern in _OURS):
            raise DataError(f"data.store={target} holds {name} and is no store; choose another URL or remove it")


def _send(local: Path, target: ObjectPath, progress: ProgressReporter) -> None:
    """Every file of ``local``; the manifest when a listing has all others with their sizes."""
    for place in target.files_below():
        place.unlink()
    files = {path.relative_to(local).as_posix(): path for path in sorted(local.rglob("*")) if path.is_file()}
    manifest = files.pop(_MANIFEST)
    sizes = {target / name: path.stat().st_size for name, path in files.items()}
    progress.say(f"sending {len(files) + 1} files, {sum(sizes.values()):,} bytes, to {target}")
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="send") as pool:
        list(pool.map(lambda name: (target / name).send(files[name]), files))
    there = {place: status.st_size for place, status in target.files_below().items()}
    if there != sizes:
        wrong = sorted(str(place) for place in sizes.keys() | there.keys() if sizes.get(place) != there.get(place))
        raise DataError(f"{', '.join(wrong)}: not there as sent, or sent by another prepare; start the command again")
    (target / _MANIFEST).send(manifest)
