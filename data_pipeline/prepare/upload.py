"""A version of a store behind a URL: made on a local disk, then sent, its manifest last."""

import hashlib
import json
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from data_pipeline.prepare.ownership import OF_A_STORE, remove_ours
from data_pipeline.prepare.plan import Plan, log_files_outside, plan_of
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.provenance import saved_provenance
from data_pipeline.prepare.publish import base_of, finish_publication, is_store
from data_pipeline.prepare.store_lease import writing_store
from data_pipeline.store.file_sums import files_below
from data_pipeline.store.lease_records import is_of_lease
from data_pipeline.store.manifest import MANIFEST, VERSIONS, Manifest, load_manifest, manifest_text, version_name
from data_pipeline.store.paths import ObjectPath

_SENDING = "sending.json"
"""Lies at the URL while a version is sent, so that what an interrupted sending has left is known as such."""
_FILES_AT_ONCE = 4


def prepare_and_upload(
    config: DataConfig,
    given: Collection[str],
    make: Callable[[Plan, ProgressReporter], Manifest],
    progress: ProgressReporter,
) -> Manifest:
    """The store at the URL ``config.store``, or its next version, made by ``make`` in ``config.spill_dir`` first.

    An interrupted sending is begun again by the same command, which sends what is made. Raises :class:`DataError` for
    objects of somebody else where the version must go.
    """
    target = ObjectPath(config.store.rstrip("/"))
    if not config.spill_dir:
        raise ConfigError(
            f"data.store={config.store} is made on a local disk first; set data.spill_dir to a folder with room for "
            f"the log's events and the store"
        )
    while True:
        plan = _plan_at(target, replace(config, store=target.url), given, progress)
        if plan is None:
            return load_manifest(target.url)
        with writing_store(target, f"data.store={config.store}") as lease:
            if _next_version(target) == plan.version:  # else another process has sent one meanwhile
                plan.check = lease.check
                return _make_and_send(target, plan, make, progress)


def _next_version(target: ObjectPath) -> int:
    return load_manifest(target.url).version + 1 if (target / MANIFEST).is_file() else 1


def _make_and_send(
    target: ObjectPath,
    plan: Plan,
    make: Callable[[Plan, ProgressReporter], Manifest],
    progress: ProgressReporter,
) -> Manifest:
    _refuse_others(target, plan.version)
    version = plan.version
    digest = hashlib.sha256(target.url.encode()).hexdigest()[:12]
    local = Path(plan.config.spill_dir) / f"{target.name}.sent-{digest}"
    plan.config, plan.version = replace(plan.config, store=str(local)), 1
    manifest = _made_here(plan, make, progress)
    sent = _send(local, target, version, manifest, plan.check, progress)
    remove_ours(local, OF_A_STORE)
    return sent


def _plan_at(
    target: ObjectPath, config: DataConfig, given: Collection[str], progress: ProgressReporter
) -> Plan | None:
    if not (target / MANIFEST).is_file():
        return Plan(config=config, version=1, log=log_files_outside(config, progress))
    newest = load_manifest(target.url)
    return plan_of(config, newest, saved_provenance(target.url, newest), given, progress)


def _made_here(
    plan: Plan, make: Callable[[Plan, ProgressReporter], Manifest], progress: ProgressReporter
) -> Manifest:
    """The version as a store on the local disk, which an interrupted sending may have left there."""
    local = Path(plan.config.store)
    finish_publication(local)
    if is_store(local):
        manifest = load_manifest(str(local))
        saved = saved_provenance(str(local), manifest)
        if saved is not None and saved.is_same_build(plan.provenance):
            return manifest
        remove_ours(local, OF_A_STORE)
    return make(plan, progress)


def _refuse_others(target: ObjectPath, version: int) -> None:
    """Refuse a place where somebody's objects are; what an interrupted sending has left is none of them."""
    base = base_of(version)
    names = [place.url[len(target.url) + 1 :] for place in target.files_below()]
    names = [name for name in names if not is_of_lease(name)]
    if _SENDING in names:
        names = [name for name in names if not _is_ours(name, base)]
    foreign = [name for name in names if name.startswith(base)]
    if foreign:
        what = "and is no store" if version == 1 else "which no prepare has sent"
        raise DataError(f"data.store={target} holds {foreign[0]} {what}; choose another URL, or move it elsewhere")


def _is_ours(name: str, base: str) -> bool:
    return name == _SENDING or (
        name.startswith(base) and any(fnmatchcase(name.removeprefix(base), pattern) for pattern in OF_A_STORE)
    )


def _send(
    local: Path,
    target: ObjectPath,
    version: int,
    manifest: Manifest,
    check: Callable[[], None],
    progress: ProgressReporter,
) -> Manifest:
    """The files of ``local`` as ``version`` of ``target``; the manifest when a listing has all others, as long.

    ``check`` raises where another process sends there now.
    """
    base = base_of(version)
    check()
    (target / _SENDING).write_bytes(json.dumps({"version": version}).encode())
    own = {name: path for name, path in files_below(local).items() if name in manifest.files}
    for place in target.files_below():
        name = place.url[len(target.url) + 1 :]
        if name != _SENDING and _is_ours(name, base):
            place.unlink()
    sizes = {f"{base}{name}": path.stat().st_size for name, path in own.items()}
    progress.say(f"sending {len(own) + 1} files, {sum(sizes.values()):,} bytes, to {target}")
    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="send") as pool:
        list(pool.map(lambda name: (target / f"{base}{name}").send(own[name]), own))
    there = {place.url[len(target.url) + 1 :]: status.st_size for place, status in target.files_below().items()}
    if wrong := sorted(name for name, size in sizes.items() if there.get(name) != size):
        raise DataError(f"{', '.join(wrong)}: not there as sent to {target}; start the command again")
    files = {f"{base}{name}" if name in own else name: each for name, each in manifest.files.items()}
    sent = replace(manifest, version=version, files=dict(sorted(files.items())))
    text = manifest_text(sent).encode()
    check()
    (target / VERSIONS / version_name(version) / MANIFEST).write_bytes(text)
    (target / MANIFEST).write_bytes(text)
    (target / _SENDING).unlink()
    return sent
