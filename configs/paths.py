"""One meaning of a path for every key that takes one."""

import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from configs.errors import ConfigError, require
from configs.url import is_url

MAX_NAME_BYTES = 255
"""Of one name on Linux's file systems."""
MAX_PATH_BYTES = 4096


def checked_path(key: str, text: str) -> str:
    """``text`` as it is used from here on; a URL is left as it is, but ``file://`` is a path.

    ``~`` is the home folder; a slash at the end, doubled slashes and ``./`` go; ``..`` and links stay, since only the
    file system knows where they lead. Empty stays empty. Names may be no UTF-8.
    Raises :class:`ConfigError`, which names ``key``, for what no file system takes.
    """
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if not text or is_url(text):
        return text
    shown = text if len(text) <= 100 else f"{text[:100]}..."
    require(bool(text.strip()), f"{key}={text!r} is blank; name a path")
    require(
        not any(each in text for each in "\0\n\r"), f"{key}={shown!r} holds a line break; name a path without one"
    )
    if text.startswith("~"):
        expanded = str(Path(text).expanduser()) if _has_home(text) else ""
        require(bool(expanded), f"{key}={shown}: there is no such user; write ./{shown} for a file of that name")
        text = expanded
    path = PurePosixPath(text)
    is_short = all(len(_bytes(part)) <= MAX_NAME_BYTES for part in path.parts) and len(_bytes(text)) < MAX_PATH_BYTES
    require(is_short, f"{key}={shown} is longer than a path may be, {MAX_NAME_BYTES} bytes a name")
    return str(path)


def checked_folder(key: str, text: str) -> str:
    """:func:`checked_path` of a folder that is written; the root of the file system is refused too."""
    path = checked_path(key, text)
    is_root = bool(path) and not is_url(path) and Path(path).resolve() == Path("/")
    require(not is_root, f"{key}={text} is the root of the file system; name a folder below it")
    return path


def _has_home(text: str) -> bool:
    try:
        Path(text).expanduser()
    except RuntimeError:
        return False
    return True


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def refuse_unwritable(shown: str, folder: Path, remedy: str = "name another") -> None:
    """Raise :class:`ConfigError`, which begins with ``shown`` and ends with ``remedy``, where nothing can be made in
    ``folder``: it, or the nearest one above it that is there, is no folder or may not be written."""
    folder = folder.absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise ConfigError(f"{shown} cannot be written: {folder} is no folder; {remedy}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"{shown} cannot be written: no permission in {folder}; {remedy}")
