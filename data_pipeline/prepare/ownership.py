"""What a prepare has written in its own folders, by name: only that is ever removed."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

OF_A_STORE = (
    *("manifest.json", "newest.json", "items.parquet", "item_content.parquet", "prepared_from.json"),
    "versions/000001/manifest.json",
    *("histories/part-*.parquet", "histories/growing.parquet", "quarantine/part-*.parquet"),
    *("histories/.attempt-*", "quarantine/.attempt-*", "histories/.attempt-*/*", "quarantine/.attempt-*/*"),
)
"""The files of a store that grows."""
_OF_SPARK = ("part-*", ".part-*", "_SUCCESS", "._SUCCESS.crc")
OF_A_SPILL = (
    *("state.json", "state.json.new", "item_ids.block", "item_ids.new", "cuts.block", "cuts.new"),
    *(f"{folder}/*.{ending}" for folder in ("ranges", "distinct") for ending in ("arrow", "new")),
    *(f"{folder}/{name}" for folder in ("scanned", "distinct", "core-*", "users") for name in _OF_SPARK),
)
"""The files that a prepare keeps between its stages."""
MARK = "prepare.json"
"""Lies in a folder that a prepare has made for itself and may remove, and says for which store."""


def foreign_in(folder: Path, ours: Sequence[str]) -> list[str]:
    """What lies below ``folder`` and fits none of ``ours``: files, links, and folders that hold nothing; in order."""
    return sorted(name for name, path in _entries(folder) if not (_is_ours(name, ours) and _is_plain(path)))


def remove_ours(folder: Path, ours: Sequence[str]) -> None:
    """Remove the files below ``folder`` that fit one of ``ours``, then the folders that are left empty by that.

    ``folder`` itself goes as well where nothing is left in it. What somebody else has put there stays.
    """
    parents = {folder}
    for name, path in list(_entries(folder)):
        if _is_ours(name, ours) and _is_plain(path):
            path.unlink()
            parents |= {each for each in path.parents if each.is_relative_to(folder)}
        elif path.is_dir() and not path.is_symlink() and _is_folder_of(name, ours):
            parents.add(path)
    for each in sorted(parents, key=lambda path: len(path.parts), reverse=True):
        if each.is_dir() and not each.is_symlink() and not any(each.iterdir()):
            each.rmdir()


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file, link and empty folder below ``folder``, by its name from there; links are not followed."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in [*files, *links]:
            yield (here / name).relative_to(folder).as_posix(), here / name
        if not folders and not files and here != folder:
            yield here.relative_to(folder).as_posix(), here


def _is_ours(name: str, ours: Sequence[str]) -> bool:
    parts = name.split("/")
    return any(
        len(parts) == len(pattern.split("/")) and all(map(fnmatchcase, parts, pattern.split("/"))) for pattern in ours
    )


def _is_folder_of(name: str, ours: Sequence[str]) -> bool:
    """Whether ``name`` is a folder that files of ``ours`` lie in."""
    return _is_ours(name, [pattern.rpartition("/")[0] for pattern in ours if "/" in pattern])


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
