"""An export behind a URL: made in a folder of this machine, then sent, ``model.json`` last.

Objects cannot be renamed. So ``sending.json`` lies at the URL while files are sent, and there is no ``model.json``
meanwhile: whoever reads an export without one refuses it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from configs.atomic_files import parse_json_with_sum
from configs.errors import ConfigError, DataError
from configs.run_dir import user_cache
from configs.schema import RunConfig
from data_pipeline.prepare.store_lease import writing_store
from data_pipeline.store.lease_records import is_of_lease
from data_pipeline.store.paths import ObjectPath
from train.distributed.heartbeat import heartbeating
from train.export.folder import FILES, FORMAT, MODEL, new_folder, remove_export

SENDING = "sending.json"
_FILES_AT_ONCE = 4
_BLOCK_BYTES = 2**23


@contextmanager
def new_remote_folder(target: ObjectPath, config: RunConfig, heartbeat: Callable[[], None]) -> Iterator[Path]:
    """A folder of this machine, whose files are at ``target`` when the block has ended without an error.

    Raises :class:`ConfigError` where another export writes there, or objects are there that none has written, and
    :class:`DataError` where sending fails: the whole export then stays in the folder of this machine.
    """
    local = working_folder(config, target)
    with ExitStack() as held:
        with heartbeating(heartbeat):  # one that was killed is waited for
            lease = held.enter_context(writing_store(target, f"export.output={target}"))
        with new_folder(local) as partial:
            yield partial
        with heartbeating(heartbeat):
            _send(local, target, lease.check)
        remove_export(local)


def working_folder(config: RunConfig, target: ObjectPath) -> Path:
    """Where the export of ``target`` is made: below ``scratch_dir``, by default in the user's cache."""
    digest = hashlib.sha256(target.url.encode()).hexdigest()[:16]
    return Path(os.path.realpath(config.scratch_dir or user_cache())) / f"export-{digest}-{os.uname().nodename}"


def refuse_foreign_objects(target: ObjectPath, *, by_sum: bool = False) -> None:
    """Raise :class:`ConfigError` where ``target`` is an object, or holds one that no export has written: known by its
    name and size, and with ``by_sum`` by its content."""
    if target.is_file():
        raise ConfigError(f"export.output={target} is an object and no folder; name another")
    there = _names_below(target)
    listed = _listed(target) if MODEL in there else {}
    is_sending = SENDING in there and _is_ours(target / SENDING)
    for name, size in there.items():
        is_known = name == MODEL and bool(listed)
        is_known |= is_sending and name in (SENDING, *FILES)
        expected = listed.get(name)
        if not is_known and not (expected and expected.get("bytes") == size):
            _refuse(target, name)
        if by_sum and expected and not is_sending and _sha256_of(target / name) != expected.get("sha256"):
            _refuse(target, name)


def _refuse(target: ObjectPath, name: str) -> None:
    raise ConfigError(
        f"export.output={target} holds {name!r}, which no export wrote or which was changed since, and is left as it "
        f"is; name another URL"
    )


def _names_below(target: ObjectPath) -> dict[str, int]:
    """Sizes of the objects by their names from ``target``, without those of a lease."""
    found = {place.url[len(target.url) + 1 :]: status.st_size for place, status in target.files_below().items()}
    return {name: size for name, size in found.items() if not is_of_lease(name)}


def _listed(target: ObjectPath) -> dict[str, Any]:
    """What ``model.json`` lists, itself too; nothing where it is none of ours."""
    place = target / MODEL
    try:
        document = parse_json_with_sum(place.read_bytes(), MODEL)
    except DataError:
        return {}
    files = document.get("files")
    return files if document.get("format") == FORMAT and isinstance(files, dict) else {}


def _is_ours(place: ObjectPath) -> bool:
    try:
        found = json.loads(place.read_bytes())
    except ValueError:
        return False
    return bool(found == {"format": FORMAT})


def _sha256_of(place: ObjectPath) -> str:
    digest = hashlib.sha256()
    with place.open() as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _send(local: Path, target: ObjectPath, check: Callable[[], None]) -> None:
    """The files of ``local`` as those of ``target``, ``model.json`` when a listing has all others, as long.

    ``check`` raises where another process sends there now.
    """
    refuse_foreign_objects(target, by_sum=True)
    check()
    (target / SENDING).write_bytes(json.dumps({"format": FORMAT}).encode())
    older = _names_below(target)
    for name in sorted(older, key=lambda name: name != MODEL):  # without model.json the others are no export
        if name != SENDING:
            (target / name).unlink()
    files = {path.name: path for path in local.iterdir() if path.name != MODEL and path.is_file()}
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="send") as pool:
        list(pool.map(lambda name: (target / name).send(files[name]), files))
    there = _names_below(target)
    if wrong := sorted(name for name, path in files.items() if there.get(name) != path.stat().st_size):
        raise DataError(f"{', '.join(wrong)}: not there as sent to {target}; start the command again")
    check()
    (target / MODEL).send(local / MODEL)
    (target / SENDING).unlink()
