"""What the rows of a trained run mean: its choices, and the store whose raw ids say which is which. Without torch."""

from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from configs.errors import ConfigError, DataError
from configs.load import variants_of
from configs.overrides import as_typed
from configs.schema import RunConfig
from data_pipeline.store.id_map import kinds_of_ids
from data_pipeline.store.item_content import StoredItemFeature, chosen_content
from data_pipeline.store.manifest import Manifest, identity_digests, load_manifest, versions_of
from data_pipeline.store.paths import path_of
from train.run_dir.identity import VERSION, load_run_config, saved_identity
from train.run_dir.model_files import refuse_without_model

_OF_TRAINING = ("dropout", "attention_dropout", "initial_std", "precision")
"""Keys of the model that change neither the shapes of its tensors nor what their values mean; all others may."""
INIT_FROM = "init_from"


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run as it was trained. ``key`` and ``name``: how the user named it, such as ``init_from``."""

    key: str
    name: str
    config: RunConfig
    identity: dict[str, Any]

    @property
    def shown(self) -> str:
        """As the user typed it."""
        return f"{self.key}={self.name}"


def trained_run(key: str, name: str, scratch_dir: str = "") -> TrainedRun:
    """The run in the folder or URL ``name``; :class:`ConfigError`, which names ``key``, where there is none."""
    try:
        identity = saved_identity(path_of(name), name)
        config = load_run_config(name, [f"scratch_dir={as_typed(scratch_dir)}"] if scratch_dir else [])
    except ConfigError as error:
        raise ConfigError(str(error).replace(f"run_dir={name}", f"{key}={name}")) from error
    return TrainedRun(key, name, config, identity)


def store_of_run(run: TrainedRun, other: str) -> tuple[str, Manifest]:
    """The store and the version whose raw ids the rows of ``run`` are: its own, or where that is gone a version of
    ``other`` with the same numbering. Raises :class:`ConfigError` where there is none."""
    own, version = run.config.data.store, int(run.identity.get(VERSION, run.config.data.version))
    places = [(own, version)]
    with suppress(DataError):  # whoever reads it says why
        places += [(other, each) for each in reversed(versions_of(other))]
    why = ""
    for store, number in dict.fromkeys(places):
        try:
            manifest = load_manifest(store, number)
        except (ConfigError, DataError, OSError) as error:
            why = why or f" ({error})"
            continue
        if _is_of(run, manifest):
            return store, manifest
        why = why or f" (it holds other data now: its fingerprint is {manifest.fingerprint})"
    raise ConfigError(
        f"{run.shown} was trained on version {version} of data.store={own}, which cannot be read{why}; its raw ids "
        f"say which row of the model is which item: put that store back"
    )


def refuse_other_kind_of_ids(run: TrainedRun, source: tuple[str, Manifest], store: str, manifest: Manifest) -> None:
    """Raise :class:`ConfigError` where raw ids of the two stores can never be equal."""
    here, there = kinds_of_ids(store, manifest), kinds_of_ids(*source)
    for name, kind in here.items():
        if kind != there[name]:
            raise ConfigError(
                f"data.store={store} has {name} ids that are {kind}, those of {run.shown} are {there[name]}, so that "
                f"none is the same; prepare the log with the ids that the run knows"
            )


def refuse_other_features(run: TrainedRun, source: Manifest, store: str, manifest: Manifest) -> None:
    """Raise :class:`ConfigError` where a feature of the model is encoded otherwise in ``store``."""
    for name in run.config.features_of_events:
        if name not in manifest.features:
            key = "loss.label" if name == run.config.label else "model.event_features"
            raise ConfigError(
                f"{key} of {run.shown}: data.store={store} has no feature {name!r}, "
                f"which {run.shown} was trained with; prepare it with data.features.{name}"
            )
        here, there = (_encoding(each, name) for each in (manifest, source))
        differing = [key for key in there if there[key] != here[key]]
        if differing:
            raise ConfigError(
                f"data.features.{name}: data.store={store} has another {differing[0]} than the store of {run.shown}, "
                f"so that its values mean something else to the model; add the new events by data.append=true, which "
                f"keeps the encoding"
            )


def refuse_other_item_features(run: TrainedRun, source: Manifest, store: str, manifest: Manifest) -> None:
    """Raise :class:`ConfigError` where an item feature of the model is not in ``store``, or is encoded otherwise."""
    here = chosen_content(store, manifest.item_content, run.config.model.item_features)
    there = chosen_content(run.config.data.store, source.item_content, run.config.model.item_features)
    for name in here:
        if _codes_of(here[name]) != _codes_of(there[name]):
            raise ConfigError(
                f"data.item_features.{name}: data.store={store} encodes it otherwise than the store of {run.shown}, "
                f"so that its values mean something else to the model; add the new events by data.append=true, which "
                f"keeps the encoding"
            )


def refuse_unfit(config: RunConfig) -> None:
    """Raise :class:`ConfigError` where the model of ``init_from`` does not fit that of ``config``, or is
    ``run_dir`` itself. Changes nothing; not collective."""
    if config.init_from:
        if config.init_from == config.run_dir:
            raise ConfigError(
                f"init_from={config.init_from} is run_dir itself; name a new run_dir for the model that begins with "
                f"it"
            )
        run = trained_run(INIT_FROM, config.init_from, config.scratch_dir)
        refuse_other_shapes(run, config)
        refuse_without_model(config, INIT_FROM)


def refuse_other_shapes(run: TrainedRun, config: RunConfig) -> None:
    """Raise :class:`ConfigError`, which names the key, where the tensors of ``run`` do not fit ``config``'s model."""
    theirs, ours = variants_of(run.config), variants_of(config)
    pairs: dict[str, tuple[Any, Any]] = {"model": (theirs["model"], ours["model"])}
    if theirs["model"] == ours["model"]:
        for name in (each.name for each in fields(config.model) if each.name not in _OF_TRAINING):
            pairs[f"model.{name}"] = (getattr(run.config.model, name), getattr(config.model, name))
    pairs["data.max_history"] = (run.config.data.max_history, config.data.max_history)
    if config.init_optimizer:
        pairs["optimizer.table"] = (run.config.optimizer.table, config.optimizer.table)
    for key, (there, here) in pairs.items():
        if there != here:
            words = [str(getattr(each, "value", each)) for each in (there, here)]
            raise ConfigError(
                f"{key}={words[1]}, but {run.shown} was trained with {key}={words[0]}, so that its model does not "
                f"fit; use {key}={words[0]}"
            )


def refuse_unknown_items(run: TrainedRun, rows: np.ndarray, store: str) -> None:
    """Raise :class:`ConfigError` where the model of ``run`` knows no item of ``store``: ``rows`` are -1."""
    if not (rows >= 0).any():
        raise ConfigError(
            f"{run.shown} knows none of the {len(rows):,} items of data.store={store} by its raw id; name a store of "
            f"the same catalogue"
        )


def _is_of(run: TrainedRun, manifest: Manifest) -> bool:
    here = identity_digests(manifest)
    known = [key for key in here if key in run.identity]
    return bool(known) and all(run.identity[key] == here[key] for key in known)


def _encoding(manifest: Manifest, name: str) -> dict[str, Any]:
    stored = manifest.features[name]
    names = (
        "type",
        "encode",
        "max_values",
        "normalise",
        "fill",
        "vocabulary",
        "filled_by",
        "mean",
        "std",
        "min",
        "max",
    )
    return {each: getattr(stored, each) for each in names}


def _codes_of(feature: StoredItemFeature) -> StoredItemFeature:
    """``feature`` without what it counts."""
    values = feature.values and replace(feature.values, num_values=0, num_missing=0)
    return replace(feature, num_missing=0, values=values)
