"""What a store was prepared from, against what the user of a run names: training takes a store as it is."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from configs.atomic_files import parse_json_with_sum
from configs.errors import ConfigError, DataError
from configs.flatten import flat
from configs.schema import RunConfig
from configs.url import is_url
from data_pipeline.prepare.provenance import digest_of
from data_pipeline.prepare.read.sources import find_log_files
from data_pipeline.store.file_sums import checked_bytes
from data_pipeline.store.manifest import PREPARED_FROM, Manifest, load_manifest, paths_of
from data_pipeline.store.paths import AnyPath

_NOT_OF_THE_CONTENT = "max_bad_fraction"
"""Of the options that a store keeps, the one that only decides whether prepare ends with an error."""


def refuse_other_origin(config: RunConfig, overrides: Sequence[str], manifest: Manifest) -> None:
    """Raise :class:`ConfigError` for a log or for options among ``overrides`` that ``manifest``'s version was not
    made with, :class:`DataError` where what the store says of itself cannot be read."""
    origin = _saved_origin(config.data.store, manifest)
    _refuse_other_log(config, overrides, origin)
    _refuse_other_options(config, overrides, origin)


def note_grown_log(config: RunConfig, overrides: Sequence[str]) -> str:
    """One line where the log that the user names has files that no version of the store has seen; else empty."""
    store, log = config.data.store, config.data.log
    origin = _saved_origin(store, load_manifest(store))
    if not log or not origin.get("files") or not any(key.startswith("data.log=") for key in overrides):
        return ""
    try:
        paths = find_log_files(log, config.data.source)
    except (ConfigError, DataError):  # a log that is gone, or is not whole yet, is not needed to train
        return ""
    new, changed = _unseen(paths, origin)
    if not new and not changed:
        return ""
    what = [
        _named(new, "that data.store={store} has not seen"),
        _named(changed, "that changed since data.store={store}"),
    ]
    told = " and ".join(each.format(store=store) for each in what if each)
    return f"note: data.log={log} has {told}; training reads the store as it is; {_remedy(store, log, origin)}"


def _remedy(store: str, log: str, origin: dict[str, Any]) -> str:
    """The command that brings the new files in: a k-core needs all events, so that nothing is appended to it."""
    made = {f"data.{name}": origin.get("options", {}).get(name, 1) for name in ("min_user_events", "min_item_events")}
    cores = [f"{key}={value}" for key, value in made.items() if value != 1]
    if cores:
        words = " ".join([*cores, f"data.log={log}", f"data.store={store}"])
        return f"`shardrec prepare {words}`, with its other options, makes the next version of all files"
    return f"`shardrec prepare data.append=true data.log={log} data.store={store}` adds new files"


def _named(paths: list[AnyPath], what: str) -> str:
    if not paths:
        return ""
    more = ", ..." if len(paths) > 3 else ""
    return f"{len(paths)} {'file' if len(paths) == 1 else 'files'} {what} ({', '.join(map(str, paths[:3]))}{more})"


def _unseen(paths: list[AnyPath], origin: dict[str, Any]) -> tuple[list[AnyPath], list[AnyPath]]:
    """Of ``paths`` those whose bytes the store does not hold: new ones, and those that it holds with other bytes.

    A file is known by its path and size, else by its bytes, as ``prepare`` knows it.
    """
    known = {_full(str(name)): size for name, size, _ in origin["files"]}
    digests: dict[int, set[str]] = {}
    for (_, size, _), digest in zip(origin["files"], origin.get("digests", []), strict=False):
        digests.setdefault(size, set()).add(digest)
    new, changed = list[AnyPath](), list[AnyPath]()
    for path in paths:
        size, before = path.stat().st_size, known.get(_full(str(path)))
        if size == before or (size in digests and digest_of(path) in digests[size]):
            continue
        (new if before is None else changed).append(path)
    return new, changed


def _full(path: str) -> str:
    return path if is_url(path) else str(Path(path).resolve())


def _saved_origin(store: str, manifest: Manifest) -> dict[str, Any]:
    """What the store says that it was made from; empty where it does not say, as one that was written by hand."""
    for path, expected in paths_of(store, manifest, PREPARED_FROM):
        content = checked_bytes(path, expected)
        if expected is not None:
            return parse_json_with_sum(content, path)
        try:
            found = json.loads(content)
        except ValueError as error:
            raise DataError(f"{path} cannot be read ({error}); prepare the store again") from error
        return found if isinstance(found, dict) else {}
    return {}


def _refuse_other_log(config: RunConfig, overrides: Sequence[str], origin: dict[str, Any]) -> None:
    """Refuse a store that was made from another log than the one that the user named."""
    log, files = config.data.log, [str(file) for file, *_ in origin.get("files", [])]
    if not log or not files or not any(key.startswith("data.log=") for key in overrides):
        return
    if not any(_is_of(file, log) for file in files):
        raise ConfigError(
            f"data.store={config.data.store} was made from {', '.join(files[:3])}, not from data.log={log}; "
            f"choose another data.store, or prepare this one again with `shardrec prepare`"
        )


def _is_of(file: str, log: str) -> bool:
    """Whether ``file`` is the log, lies below it or fits it as a glob; paths may be written differently."""
    if not is_url(log):
        file, log = str(Path(file).resolve()), str(Path(log).resolve())
    return file == log or file.startswith(f"{log.rstrip('/')}/") or fnmatchcase(file, log.replace("**/", "*"))


def _refuse_other_options(config: RunConfig, overrides: Sequence[str], origin: dict[str, Any]) -> None:
    """Refuse keys of the user that the store was made without: training takes a store as it is, and the run's record
    would tell of a choice that had no effect.

    What the user did not give may differ: nobody repeats for training what a store was prepared with.
    """
    made, asked = dict(flat(origin.get("options", {}))), dict(flat(asdict(config.data)))
    keys = [key for key in _keys_given(overrides, asked) if _is_known(key, made, origin)]
    wrong = [key for key in keys if key not in made or not _is_same(key, made[key], asked[key])]
    if wrong:
        was = ", ".join(_typed(key, made[key]) if key in made else f"no data.{key}" for key in wrong)
        raise ConfigError(
            f"data.store={config.data.store} was prepared with {was}, not with "
            f"{', '.join(_typed(key, asked[key]) for key in wrong)}; name another data.store and make it so with "
            f"`shardrec prepare`, or leave out {', '.join(f'data.{key}' for key in wrong)} to train on this one"
        )


def _keys_given(overrides: Sequence[str], known: Collection[str]) -> list[str]:
    """Those of ``known``, the keys below ``data``, that ``overrides`` name themselves, each once; not those that a
    group or an experiment sets."""
    found = list[str]()
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if not key.startswith("data."):
            continue
        key = key.removeprefix("data.")
        if key not in known and value.startswith("{"):  # as in data.columns={user: uid}
            given: Any = OverridesParser.create().parse_override(f"{key}={value}").value()
            found += [name for name, _ in flat(given, f"{key}.")]
        else:
            found.append(key)
    return [key for key in dict.fromkeys(found) if key in known]


def _is_known(key: str, made: dict[str, Any], origin: dict[str, Any]) -> bool:
    """Whether ``key`` shapes what is in a store and the origin says what it was.

    A store that keeps options but no such feature was made without it. The files of an append may be written
    otherwise than the first ones, whose choices alone are kept.
    """
    if key == _NOT_OF_THE_CONTENT:
        return False
    if origin.get("num_appends") and (key.startswith(("columns.", "source.")) or key.endswith(".column")):
        return False
    group, _, name = key.partition(".")
    is_named = bool(name) and group in ("features", "item_features")
    if made and is_named and name.partition(".")[0] not in origin["options"].get(group, {}):
        return True
    if made and key in ("items", "items_column"):
        return True
    return key in made


def _is_same(key: str, made: Any, asked: Any) -> bool:
    """Whether both values make the same store."""
    if key in ("event_types", "source.missing"):
        return set(made) == set(asked)
    if key.endswith(".column"):  # of a feature: empty is its own name
        name = key.split(".")[1]
        return (made or name) == (asked or name)
    if key == "items" and not is_url(made) and not is_url(asked):
        return Path(made).resolve() == Path(asked).resolve()
    return bool(made == asked)


def _typed(key: str, value: Any) -> str:
    """As a person types it."""
    return f"data.{key}={value if isinstance(value, str) else json.dumps(value)}"
