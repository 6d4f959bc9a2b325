"""Which version of a store a run reads: the one that it began with, to its end, whatever is added meanwhile."""

import hashlib
import json
import os
import socket
from dataclasses import replace
from typing import Any

from configs.atomic_files import parse_json_with_sum, write_json
from configs.errors import ConfigError, DataError
from configs.schema import RunConfig
from configs.url import is_url
from data_pipeline.store.manifest import PINS, Manifest, identity_digests, load_manifest, versions_of
from data_pipeline.store.paths import AnyPath, ObjectPath, path_of
from train.run_dir.identity import IDENTITY, VERSION, saved_identity

_MEANING = {
    "data.item_ids": "items",
    "data.user_ids": "users",
    "data.feature_codes": "values of features",
}


def manifest_of_run(config: RunConfig, folder: AnyPath) -> Manifest:
    """The manifest of the version that the run reads, whose records lie in ``folder``.

    A new run takes ``data.version``, by default the newest. A run that has begun reads the version that it began
    with, or where the store numbers its versions otherwise the one with the same content under the same dense ids.
    Raises :class:`ConfigError` where there is none.
    """
    store, version = config.data.store, config.data.version
    saved = saved_identity(folder, config.run_dir) if (folder / IDENTITY).is_file() else None
    if saved is None or version not in (0, saved.get(VERSION)):
        manifest = load_manifest(store, version)
        if saved is not None:
            refuse_other_content(config, saved, manifest)
        return manifest
    newest = load_manifest(store)
    wanted = int(saved.get(VERSION, newest.version))
    there = [each for each in versions_of(store) if each not in (wanted, newest.version)]
    for number in (*([wanted] if wanted in versions_of(store) else []), newest.version, *there):
        manifest = newest if number == newest.version else load_manifest(store, number)
        if not _difference(saved, manifest):
            return manifest
    refuse_other_content(config, saved, newest)
    raise AssertionError("the newest version differs")


def at_version(config: RunConfig, version: int) -> RunConfig:
    """``config`` that reads ``version`` and no other."""
    return replace(config, data=replace(config.data, version=version))


def refuse_other_content(config: RunConfig, saved: dict[str, Any], manifest: Manifest) -> None:
    """Raise :class:`ConfigError` where rows of the run's tables mean something else in ``manifest``'s version."""
    key = _difference(saved, manifest)
    if not key:
        return
    where = f"data.store={config.data.store} (version {manifest.version})"
    if key in _MEANING:
        raise ConfigError(
            f"{where} holds the events of run_dir={config.run_dir}, but numbers their {_MEANING[key]} otherwise "
            f"({key}={identity_digests(manifest)[key][:12]}..., not {saved[key][:12]}...), as a store that grew by "
            f"appends and one that was prepared at once do; name the store that the run began with"
        )
    if key == "data.item_content":
        raise ConfigError(
            f"{where} holds other item content than run_dir={config.run_dir} learnt from ({key}="
            f"{identity_digests(manifest)[key][:12]}..., not {saved[key][:12]}...); prepare with the data.items and "
            f"data.item_features of then, or choose another run_dir"
        )
    raise ConfigError(
        f"{where} holds other data than run_dir={config.run_dir} learnt from: there {key}={saved[key]}, here "
        f"{manifest.fingerprint}; choose another run_dir, or name the store that the run began with"
    )


def note_newer_version(config: RunConfig, manifest: Manifest) -> str:
    """One line where the run goes on with a version that is not the newest, or none; empty otherwise."""
    newest = load_manifest(config.data.store).version
    if newest == manifest.version:
        return ""
    return (
        f"note: data.store={config.data.store} has version {newest}; this run reads version {manifest.version} to "
        f"its end; a new run_dir reads the newest"
    )


def pin(config: RunConfig, manifest: Manifest) -> str:
    """Write down in the store that the run reads its version, so that ``shardrec prune`` keeps that; what to tell the
    user where the store cannot be written, else empty."""
    place = pin_of(config)
    record = {
        "run_dir": config.run_dir if is_url(config.run_dir) else os.path.abspath(config.run_dir),
        "version": manifest.version,
        "host": socket.gethostname(),
    }
    try:
        if _is_pinned(place, record):
            return ""
        if isinstance(place, ObjectPath):
            place.write_bytes(json.dumps(record).encode())
        else:
            place.parent.mkdir(exist_ok=True)
            write_json(place, record)
    except (OSError, DataError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return (
            f"note: data.store={config.data.store} cannot be written ({reason}), so it does not know that this run "
            f"reads version {manifest.version}: do not prune that version while the run needs it"
        )
    return ""


def pin_of(config: RunConfig) -> AnyPath:
    """Where the store keeps which version the run reads."""
    run_dir = config.run_dir if is_url(config.run_dir) else os.path.abspath(config.run_dir)
    name = hashlib.sha256(os.fsencode(f"{socket.gethostname()}:{run_dir}")).hexdigest()[:16]
    return path_of(config.data.store) / PINS / f"{name}.json"


def _is_pinned(place: AnyPath, record: dict[str, Any]) -> bool:
    try:
        return parse_json_with_sum(place.read_bytes(), place) == record
    except (FileNotFoundError, DataError):
        return False


def _difference(saved: dict[str, Any], manifest: Manifest) -> str:
    """The first of the keys, which both know, whose digests differ; empty where none does."""
    here = identity_digests(manifest)
    return next((key for key in here if key in saved and saved[key] != here[key]), "")
