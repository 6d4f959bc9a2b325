"""Small files that are whole or not there, and that know their own sum: every JSON and text file of a run."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from configs.errors import DataError

SUM = "xxh3"
"""The key of a JSON file, and the word of a text file's last line, that holds the sum of the rest."""
_TRAILER = f"# {SUM}: "


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside and rename: a kill, a lost machine or a full disk leaves the old file or the new one, whole.

    Text is UTF-8; names that are none keep their bytes. Raises :class:`OSError`.
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """For what is too large to be held: as :func:`write_atomically`, of what the block writes into the file; an error
    in the block leaves the old file."""
    # A name that nobody else has: what lies beside may be another's file, or another writer's.
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def json_with_sum(document: dict[str, Any], indent: int | None = 2) -> str:
    """``document`` as JSON whose last key is the sum of the others."""
    return json.dumps({**document, SUM: _sum_of(document)}, indent=indent) + "\n"


def parse_json_with_sum(text: str | bytes, shown: object) -> dict[str, Any]:
    """The document that :func:`json_with_sum` wrote; :class:`DataError` where a bit of it is another. ``shown``: its
    file, for the message."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown} is damaged: it is not the JSON that was written ({error})") from error
    if not isinstance(document, dict) or SUM not in document:
        raise DataError(f"{shown} is damaged, or another version wrote it: it has no sum ({SUM})")
    if document.pop(SUM) != _sum_of(document):
        raise DataError(f"{shown} is damaged: its content does not fit its sum")
    return document


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write ``document`` with its sum, atomically. Raises :class:`OSError`."""
    write_atomically(path, json_with_sum(document))


def read_json(path: Path) -> dict[str, Any]:
    """What :func:`write_json` wrote. :class:`DataError` where it is damaged, :class:`OSError` as reading does."""
    return parse_json_with_sum(path.read_bytes(), path)


def text_with_sum(text: str) -> str:
    """``text``, which ends with a line break, and a last line that is a comment with its sum."""
    return f"{text}{_TRAILER}{_sum_of_text(text)}\n"


def parse_text_with_sum(content: bytes, shown: object) -> str:
    """The text that :func:`text_with_sum` was given; :class:`DataError` where a bit of it is another."""
    text, separator, trailer = content.decode("utf-8", "surrogateescape").rpartition(_TRAILER)
    if not separator:
        raise DataError(f"{shown} is damaged, or another version wrote it: its last line holds no sum ({SUM})")
    if trailer != f"{_sum_of_text(text)}\n":
        raise DataError(f"{shown} is damaged: its content does not fit the sum in its last line")
    return text


def write_text(path: Path, text: str) -> None:
    """Write ``text`` with its sum, atomically. Raises :class:`OSError`."""
    write_atomically(path, text_with_sum(text))


def read_text(path: Path) -> str:
    """What :func:`write_text` wrote. :class:`DataError` where it is damaged, :class:`OSError` as reading does."""
    return parse_text_with_sum(path.read_bytes(), path)


def _sum_of(document: dict[str, Any]) -> str:
    """Of the values, however the file spells them."""
    return _sum_of_text(json.dumps(document, sort_keys=True, separators=(",", ":")))


def _sum_of_text(text: str) -> str:
    return str(xxhash.xxh3_64(text.encode("utf-8", "surrogateescape")).hexdigest())
