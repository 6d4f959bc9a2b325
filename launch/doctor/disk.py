"""Checks of the file systems that a run reads and writes."""

import os
import shlex
import shutil
import tempfile
from pathlib import Path

from configs.run_dir import disk_key, local_run_dir
from configs.schema import RunConfig
from configs.url import is_url
from launch.doctor.row import Row, doubtful, failed, good

GIB = 2**30
TOO_LITTLE_GIB = 1.0
"""Less does not hold a few checkpoints of even a small model with their temporary copies."""
LITTLE_GIB = 10.0


def check_run_dir(config: RunConfig) -> Row:
    """Whether the run folder's file system can be written and has room."""
    return _room_row("disk: run_dir", str(local_run_dir(config)), disk_key(config))


def check_store(config: RunConfig) -> Row:
    """Whether the store can be read; where there is none yet, whether it can be written and has room."""
    name, store = "disk: store", config.data.store
    if not store:
        return good(name, "data.store is not given: nothing to look at")
    if is_url(store):
        return good(name, f"{store} is no folder of this machine")
    manifest = Path(store) / "manifest.json"
    try:
        manifest.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return _room_row(name, store, "data.store")
    except OSError as error:
        fix = f"sudo chown -R $USER {shlex.quote(store)}"
        return failed(name, f"{manifest} cannot be read: {error.strerror}", fix)
    return good(name, f"{store} is prepared and can be read")


def existing_part(path: str) -> Path:
    """The deepest folder of ``path`` that is there: a run makes the rest of it."""
    folder = Path(path).absolute()
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _room_row(name: str, path: str, key: str) -> Row:
    folder = existing_part(path)
    elsewhere = f"shardrec train ... {key}=/another/disk/{Path(path).name}"
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0" * 4096)
        usage = shutil.disk_usage(folder)
    except OSError as error:
        own = shlex.quote(str(Path(path).absolute()))
        mend = f"sudo mkdir -p {own} && sudo chown $USER {own}" if isinstance(error, PermissionError) else elsewhere
        return failed(name, f"{folder} cannot be written: {error.strerror}", mend)
    free = usage.free / GIB
    found = f"{folder}: {free:.1f} GiB free of {usage.total / GIB:.1f}"
    if free < TOO_LITTLE_GIB:
        return failed(name, f"{found}, less than {TOO_LITTLE_GIB:g}", elsewhere)
    if free < LITTLE_GIB:
        return doubtful(name, f"{found}: little for checkpoints of large tables", elsewhere)
    return good(name, found)
