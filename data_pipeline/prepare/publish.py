"""A filled folder becomes the newest version of a store: files that never change again, then one atomic step.

::

    STORE/manifest.json                          of the newest version: the only file that is ever replaced
    STORE/items.parquet, histories/, ...         of version 1
    STORE/versions/000001/manifest.json          of version 1, for as long as somebody may want to read it
    STORE/versions/000002/{manifest.json, items.parquet, histories/, ...}
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from configs.errors import DataError
from data_pipeline.prepare.ownership import MARK, OF_A_STORE, foreign_in
from data_pipeline.store.file_sums import FileSum, files_below, sum_of
from data_pipeline.store.manifest import (
    FORMAT_VERSION,
    ITEMS,
    MANIFEST,
    VERSIONS,
    Manifest,
    load_manifest,
    manifest_text,
    version_name,
)

_NEWEST = "newest.json"
"""In a version's folder until its content is the store's manifest."""


def is_store(folder: Path) -> bool:
    """Whether ``folder`` is a finished store."""
    return (folder / MANIFEST).is_file()


def sealed(manifest: Manifest, folder: Path, version: int, others: dict[str, FileSum]) -> Manifest:
    """``manifest`` with the sums of all files of ``folder``, under the names that they get in the store as its
    ``version``, and of the ``others``, which are there already."""
    found = {name: sum_of(path) for name, path in files_below(folder).items() if not _is_of_publishing(name)}
    files = {**others, **{f"{base_of(version)}{name}": each for name, each in found.items()}}
    return replace(manifest, format_version=FORMAT_VERSION, version=version, files=dict(sorted(files.items())))


def _is_of_publishing(name: str) -> bool:
    return name in (MANIFEST, _NEWEST, MARK) or name.startswith(f"{VERSIONS}/")


def base_of(version: int) -> str:
    """What the paths of a version's own files begin with."""
    return "" if version == 1 else f"{VERSIONS}/{version_name(version)}/"


def publisher_of(
    store: Path, manifest_of: Callable[[], Manifest], check: Callable[[], None]
) -> Callable[[Path], None]:
    """What moves a filled folder to its place in ``store`` and makes it the newest version, ``manifest_of()``.

    ``check`` raises where this process may no longer do so, and is called right before.
    """

    def publish(folder: Path) -> None:
        manifest = manifest_of()
        text = manifest_text(manifest)
        if manifest.version == 1:
            own = folder / VERSIONS / version_name(1)
            own.mkdir(parents=True, exist_ok=True)
            (own / MANIFEST).write_text(text, encoding="utf-8")
            (folder / MANIFEST).write_text(text, encoding="utf-8")
            check()
            folder.rename(store)  # over an empty folder, too
            return
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        (folder / _NEWEST).write_text(text, encoding="utf-8")
        check()
        _keep_first_manifest(store)
        target = store / VERSIONS / version_name(manifest.version)
        if os.path.lexists(target):
            raise DataError(f"{target} is in the way of the next version of data.store={store}; move it elsewhere")
        folder.rename(target)
        _make_newest(target, store)

    return publish


def next_version(store: Path) -> int:
    """The number of the version that is made next, after what a killed prepare has left is put right.

    Raises :class:`DataError`, before any work is done, for what lies where a prepare must write.
    """
    if not is_store(store):
        if store.is_mount():
            raise DataError(f"data.store={store} is a mount point; name a folder below it: {store / 'store'}")
        if store.exists() and not (store.is_dir() and not any(store.iterdir())):
            raise DataError(f"data.store={store} exists and is no store; choose another folder")
        return 1
    folder = store / VERSIONS
    for place in (store / MANIFEST, folder):
        if place.is_symlink() or (place == folder and place.exists() and not place.is_dir()):
            raise DataError(f"{place} is in the way of the next version of data.store={store}; move it elsewhere")
    newest = load_manifest(str(store))
    target = folder / version_name(newest.version + 1)
    if (target / _NEWEST).is_file():
        _make_newest(target, store)
        return next_version(store)
    if os.path.lexists(target):
        raise DataError(
            f"{target} is in the way of the next version of data.store={store}, and no prepare has written it; "
            f"move it elsewhere"
        )
    return newest.version + 1


def finish_publication(store: Path) -> None:
    """Make a version the newest that a killed prepare had moved to its place."""
    if is_store(store):
        next_version(store)


def _make_newest(target: Path, store: Path) -> None:
    with suppress(FileNotFoundError):  # another process that starts has done it meanwhile
        (target / _NEWEST).replace(store / MANIFEST)


def _keep_first_manifest(store: Path) -> None:
    """A store of format 1 gets what its first version needs to be read for ever: a manifest with sums."""
    newest, own = load_manifest(str(store)), store / VERSIONS / version_name(1) / MANIFEST
    if newest.version != 1 or own.exists():
        return
    if not newest.files:
        ours = {name: store / name for name in files_below(store) if name not in foreign_in(store, OF_A_STORE)}
        ours.pop(MANIFEST, None)
        assert ITEMS in ours, "a store has items"
        files = {name: sum_of(path) for name, path in sorted(ours.items())}
        newest = replace(newest, format_version=FORMAT_VERSION, files=files)
    own.parent.mkdir(parents=True, exist_ok=True)
    partial = own.with_name("manifest.new")
    partial.write_text(manifest_text(newest), encoding="utf-8")
    partial.replace(own)
