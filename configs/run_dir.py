"""Where a run is kept, a folder or a URL, and the local folder that this machine works in."""

import hashlib
import os
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from configs.errors import ConfigError, require
from configs.paths import checked_folder
from configs.url import is_url

SCHEMES = ("s3", "gs", "hdfs")
BIND_RANKS = "SHARDREC_BIND_RANKS"
"""Environment variable: which processors each rank pins itself to, none, cores or numa."""
RANK_LOG = "SHARDREC_RANK_LOG"
"""Environment variable: the file that each rank copies its output to, with ``{rank}`` for its number."""
READER = "evaluate"
"""Names the folder of those who read a run, such as ``shardrec evaluate``: they must not disturb one under way."""


class RunDirConfig(Protocol):
    """The keys of a run that say where it is kept."""

    run_dir: str
    scratch_dir: str


def checked_run_dir(run_dir: str, key: str = "run_dir") -> str:
    """``run_dir``, the value of ``key``, as it is used from here on: a path as :func:`checked_folder` has it; a URL
    has no slash at its end.

    Raises :class:`ConfigError` for a store, another scheme, and a URL that names no folder.
    """
    if not is_url(run_dir) or run_dir.startswith("file://"):
        path = checked_folder(key, run_dir)
        require(bool(path), f"{key} is empty; name a folder or a URL")
        is_text = not any("\ud800" <= each <= "\udfff" for each in path)
        require(is_text, f"{key}={path!r} is no UTF-8, which TensorBoard's log needs; name another folder")
        require(
            not (Path(path) / "manifest.json").is_file(),
            f"{key}={run_dir} is a store; name a folder for the run alone",
        )
        return path
    parts = urlsplit(run_dir)
    if parts.scheme not in SCHEMES:
        raise ConfigError(f"{key}={run_dir}: use s3://, gs://, hdfs://, file:// or a path (docs/object_stores.md)")
    if not parts.path.strip("/") or (parts.scheme != "hdfs" and not parts.netloc):
        raise ConfigError(f"{key}={run_dir} names no folder; write {parts.scheme}://BUCKET/PATH")
    return run_dir.rstrip("/")


def local_run_dir(config: RunDirConfig, reader: str = "") -> Path:
    """``run_dir`` itself, or for a URL its own folder in ``scratch_dir``, by default in the user's cache.

    Its name holds this machine's, since ``scratch_dir`` may be on a disk that several mount, and the ``reader``.
    """
    if not is_url(config.run_dir):
        return Path(config.run_dir)
    key = hashlib.sha256(config.run_dir.encode()).hexdigest()[:16]
    name = "-".join(filter(None, [config.run_dir.rsplit("/", 1)[-1], key, os.uname().nodename, reader]))
    return (Path(config.scratch_dir) if config.scratch_dir else user_cache() / "runs") / name


def user_cache() -> Path:
    """Our folder in the cache of whoever runs this, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "shardrec"


def disk_key(config: RunDirConfig) -> str:
    """The key that says on which of this machine's disks the run is written."""
    return "scratch_dir" if is_url(config.run_dir) else "run_dir"


def describe_run_dir(config: RunDirConfig) -> str:
    """:func:`disk_key` with its value, for messages."""
    return f"{disk_key(config)}={local_run_dir(config) if is_url(config.run_dir) else config.run_dir}"
