"""``python -m data_pipeline.prepare.prune STORE [--dry-run]``: drop the versions of a store that nobody needs."""

import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from configs.errors import ConfigError, exit_code_of
from configs.url import is_url
from data_pipeline.prepare.store_lease import writing_store
from data_pipeline.store.manifest import (
    LENGTHS,
    MANIFEST,
    PINS,
    VERSIONS,
    Manifest,
    load_manifest,
    manifest_at,
    version_name,
    versions_of,
)
from data_pipeline.store.paths import AnyPath, files_in, path_of

_PRUNED = "pruned.json"
"""The manifest of a version that is being removed: nobody finds the version any more, and a kill is gone on from."""


def main(words: Sequence[str]) -> int:
    """Print what is kept and what is removed; 0, or 2 after one line on stderr."""
    return exit_code_of(lambda: _main(words))


def _main(words: Sequence[str]) -> None:
    stores = [word.removeprefix("data.store=") for word in words if word != "--dry-run"]
    if len(stores) != 1 or stores[0].startswith("-") or "=" in stores[0]:
        raise ConfigError(f"prune needs one STORE, got {stores}: shardrec prune STORE [--dry-run]")
    for line in prune(stores[0], is_dry="--dry-run" in words):
        print(line, flush=True)


def prune(store: str, is_dry: bool = False) -> Iterator[str]:
    """Remove every version but the newest and those that runs have pinned; one line a version says what was done.

    Only files that the manifest of a removed version lists, and none that is listed by another, are removed, and of
    those only such as have the size that was written. ``is_dry``: nothing is removed.
    """
    place = path_of(store)
    place = place.resolve() if isinstance(place, Path) else place
    load_manifest(str(place))  # nothing is made at a place that holds no store
    with ExitStack() as held:
        check = _is_free if is_dry else held.enter_context(writing_store(place, f"store {store}")).check
        newest, versions = load_manifest(str(place)), versions_of(str(place))
        reasons = _reasons(place, newest.version)
        for version in versions:
            if version in reasons:
                yield f"version {version}: kept, {reasons[version]}"
            elif is_dry:
                files = _only_of(place, load_manifest(str(place), version), versions, {*reasons})
                yield f"version {version}: would be removed, {_size_of(files)}"
            else:
                check()
                _hide(place, version)
                if version in (pinned := _reasons(place, newest.version)):  # a run has begun to read it just now
                    _show(place, version)
                    yield f"version {version}: kept, {pinned[version]}"
        if not is_dry:
            yield from _remove_hidden(place, check)


def _is_free() -> None:
    """A dry run removes nothing, and so has nothing to check."""


def _reasons(place: AnyPath, newest: int) -> dict[int, str]:
    """Why versions are kept."""
    reasons = {newest: "the newest"}
    for pin in files_in(place / PINS, "*.json"):
        try:
            record = json.loads(pin.read_bytes())
            version, run_dir, host = int(record["version"]), str(record["run_dir"]), str(record["host"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{pin} cannot be read ({error}); nothing is pruned: move it elsewhere") from error
        if not _is_gone(run_dir, host):
            reasons.setdefault(version, f"run_dir={run_dir} on {host} reads it")
    return reasons


def _is_gone(run_dir: str, host: str) -> bool:
    """Whether the run has been removed, as far as this machine can tell."""
    if is_url(run_dir):
        return not (path_of(run_dir) / "identity.json").is_file()
    folder = Path(run_dir)
    return host == socket.gethostname() and folder.parent.is_dir() and not folder.exists()


def _only_of(place: AnyPath, manifest: Manifest, versions: Sequence[int], kept: set[int]) -> dict[str, int]:
    """The files with their sizes that no version of ``kept`` has."""
    others = {name for version in versions if version in kept for name in load_manifest(str(place), version).files}
    return {name: each.bytes for name, each in manifest.files.items() if name not in others}


def _size_of(files: dict[str, int]) -> str:
    return f"{len(files):,} files of {sum(files.values()):,} bytes"


def _hide(place: AnyPath, version: int) -> None:
    folder = place / VERSIONS / version_name(version)
    if isinstance(folder, Path):
        (folder / MANIFEST).rename(folder / _PRUNED)
        return
    (folder / _PRUNED).write_bytes((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).unlink()


def _show(place: AnyPath, version: int) -> None:
    folder = place / VERSIONS / version_name(version)
    if isinstance(folder, Path):
        (folder / _PRUNED).rename(folder / MANIFEST)
        return
    (folder / MANIFEST).write_bytes((folder / _PRUNED).read_bytes())
    (folder / _PRUNED).unlink()


def _remove_hidden(place: AnyPath, check: Callable[[], None]) -> Iterator[str]:
    """Remove the files of the versions that are hidden, those of a prune that was killed included."""
    kept = versions_of(str(place))
    for record in files_in(place / VERSIONS, f"*/{_PRUNED}"):
        check()
        version = int(record.parts[-2])
        files = _only_of(place, manifest_at(record, str(place)), kept, {*kept})
        left = [name for name, size in files.items() if not _remove(place / name, size)]
        for lengths in files_in(place / LENGTHS, f"{version_name(version)}-*"):
            lengths.unlink()
        record.unlink()
        if isinstance(place, Path):
            _remove_empty(place, [*files, f"{VERSIONS}/{version_name(version)}/{_PRUNED}"])
        note = f"; left, since they are not as they were written: {', '.join(left)}" if left else ""
        yield f"version {version}: removed, {_size_of(files)}{note}"


def _remove(path: AnyPath, size: int) -> bool:
    """Remove a file that is as long as it was written; whether nothing is there now."""
    if isinstance(path, Path) and path.is_symlink():
        return False
    if not path.is_file():
        return not path.exists()
    if path.stat().st_size != size:
        return False
    path.unlink()
    return True


def _remove_empty(place: Path, names: Sequence[str]) -> None:
    """Remove the folders of ``names`` that nothing is left in."""
    folders = {parent for name in names for parent in (place / name).parents if parent.is_relative_to(place)}
    for folder in sorted(folders - {place, place / VERSIONS}, key=lambda path: len(path.parts), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
