"""What is known before a model is loaded: for whom, which items, and what is wrong with the request."""

import hashlib
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import polars as pl
import xxhash

from configs.errors import ConfigError, DataError
from configs.flatten import flat
from configs.schema import RunConfig, Split, UserInput
from configs.schema.features import FeatureConfig
from configs.schema.recommend import CountedHistory, Recommended
from data_pipeline.prepare.append import with_options_of_store
from data_pipeline.prepare.read.feature_columns import typed_column
from data_pipeline.prepare.read.named_histories import EventColumns, read_events
from data_pipeline.store.feature_encoding import encoded
from data_pipeline.store.features import StoredFeature, chosen_features
from data_pipeline.store.id_map import UNKNOWN
from data_pipeline.store.manifest import identity_digests
from data_pipeline.store.paths import path_of
from data_pipeline.store.raw_users import RawUsers
from data_pipeline.stream.jagged import offsets_of
from train.recommend.asked import Asked, Rows, rows_of
from train.recommend.catalogue import Catalogue, catalogue_of
from train.recommend.id_files import (
    dense_users,
    item_column,
    named_file,
    raw_items,
    refuse_unknown,
    user_column,
)
from train.recommend.output_file import output_of, refuse_foreign

FILES = ("users", "histories", "allowed_items", "forbidden_items", "item_file")


@dataclass(kw_only=True, slots=True)
class Given:
    """Histories of a file."""

    raw: pl.Series
    """Raw ids of users, in the order of their first rows."""
    offsets: np.ndarray
    item: np.ndarray
    user: np.ndarray
    """Rows of the model's user table, -1 for one that it does not know, or where it has none: int64."""
    features: dict[str, np.ndarray]
    """By name, codes int64 or numbers float32 of each event, as the model was trained with them."""


@dataclass(kw_only=True, slots=True)
class Request:
    """What is asked for, in dense ids."""

    catalogue: Catalogue
    users: np.ndarray | None = None
    """Ascending dense ids of the events' store; None: all."""
    given: Given | None = None
    rows: Rows = field(default_factory=Rows)
    """Which row of the model each id of the events' store is."""
    notes: list[str] = field(default_factory=list)


def request_of(asked: Asked) -> Request:
    """Read the files of ``recommend``; ConfigError and DataError for all that can be wrong with them."""
    refuse_foreign(asked.config)
    manifest = asked.manifest
    config = replace(asked.config, data=with_options_of_store(asked.config.data, manifest))
    wanted = config.recommend
    if config.data.split in (Split.NONE, Split.COLD_ITEMS) and wanted.history is not CountedHistory.ALL:
        raise ConfigError(
            f"recommend.history={wanted.history.value}: run_dir={config.run_dir} was trained with data.split="
            f"{config.data.split.value}, which holds no last events out; leave it out"
        )
    if config.model.reads_request_time and wanted.what is not Recommended.SIMILAR_ITEMS:
        raise ConfigError(
            f"run_dir={config.run_dir} was trained with model.time=request, and `recommend` does not say when its "
            f"lists are asked for; train a run with model.time=event"
        )
    if wanted.histories and config.model.reads_time:
        raise ConfigError(
            f"recommend.histories={wanted.histories}: the model of the run reads the times of events, which are not "
            f"taken from files of histories; add the events to the store (data.append=true)"
        )
    asked = asked.with_config(config)
    rows, notes = rows_of(asked)
    request = Request(catalogue=catalogue_of(asked), rows=rows, notes=notes)
    request.notes += request.catalogue.notes
    if wanted.users:
        request.users, told = dense_users(config, RawUsers(config.data.store, manifest))
        request.notes += [told] if told else []
    if wanted.histories:
        request.given, notes = _given(asked, rows)
        request.notes += notes
    return request


def _given(asked: Asked, rows: Rows) -> tuple[Given, list[str]]:
    config, items = asked.config, raw_items(asked)
    file, known = named_file(config, "histories", is_log=True), RawUsers(config.data.store, asked.manifest)
    types, features = (known.dtype, items.raw.dtype), _features_of_model(asked)
    columns = EventColumns(
        user=user_column(config),
        item=item_column(config),
        time=config.data.columns.timestamp,
        features={name: _as_in_the_log(config, name, feature) for name, feature in features.items()},
    )
    events = read_events(file, columns, types)
    raw = events["user"] if events["user"].null_count() == 0 else events["user_text"]
    run = events.select(pl.col("first_row").rle_id())["first_row"].to_numpy()
    is_first = np.diff(run, prepend=-1) > 0
    if not len(raw):
        raise DataError(f"{file.shown} holds no user")
    is_event = events["item_text"].is_not_null()
    dense = items.dense_of(events["item"])
    some = events.filter(is_event).select(pl.col("item").alias("id"), pl.col("item_text").alias("text"))
    told = refuse_unknown(config, file, "item", types[1], some, dense[is_event.to_numpy()], items.shown)
    is_known = dense >= 0
    lengths = np.bincount(run[is_known], minlength=int(run[-1]) + 1)
    user, note = _users_of_model(config, file.shown, known, rows, events["user"].filter(pl.Series(is_first)))
    given = Given(
        raw=raw.filter(pl.Series(is_first)),
        offsets=offsets_of(lengths),
        item=dense[is_known],
        user=user,
        features=_encoded(file.shown, features, events.filter(pl.Series(is_known))),
    )
    return given, [each for each in (told, note) if each]


def _features_of_model(asked: Asked) -> dict[str, StoredFeature]:
    """By name, with the statistics that the model was trained with."""
    manifest, model = asked.model_manifest, asked.model
    return chosen_features(model.data.store, manifest.features, model.model.event_features)


def _as_in_the_log(config: RunConfig, name: str, feature: StoredFeature) -> FeatureConfig:
    """Where the log had the feature, and as what it is read."""
    known = config.data.features.get(name, FeatureConfig())
    return FeatureConfig(column=known.column, type=feature.type)


def _encoded(shown: str, features: dict[str, StoredFeature], events: pl.DataFrame) -> dict[str, np.ndarray]:
    """Codes int64 and numbers float32 of ``events``, by the model's statistics."""
    found = {name: encoded(feature, events[typed_column(name)]).to_numpy() for name, feature in features.items()}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise DataError(f"{shown}: the feature {name} has numbers that are too far from those of the training")
    return {
        name: values.astype(np.int64 if features[name].num_codes else np.float32) for name, values in found.items()
    }


def _users_of_model(
    config: RunConfig, shown: str, known: RawUsers, rows: Rows, users: pl.Series
) -> tuple[np.ndarray, str]:
    """Rows of the user table for ``users`` of a file, and what to tell of those that it does not know."""
    if config.model.user_input is UserInput.NONE:
        return np.full(len(users), UNKNOWN, dtype=np.int64), ""
    found = known.dense_of(users)
    if rows.user is not None:
        found = np.where(found == UNKNOWN, UNKNOWN, rows.user[found])
    num_new = int((found == UNKNOWN).sum())
    note = f"note: {shown}: {num_new:,} of {len(users):,} users are new to the model, which has no vector of them"
    instead = "they get popular items" if config.model.knows_users_alone else "their histories alone count"
    return found, f"{note}: {instead}" if num_new else ""


def job_of(asked: Asked, trained: dict[str, object]) -> dict[str, str]:
    """What decides every byte of the output; parts of another job are not gone on with."""
    config, manifest = asked.config, asked.manifest
    wanted = asdict(config.recommend)
    for key in ("overwrite", "output"):
        del wanted[key]
    keys = dict(flat({"recommend": wanted, "trained": trained, **identity_digests(manifest)}))
    keys["evaluation.leave_out_seen"] = config.evaluation.leave_out_seen
    keys["data.max_history"] = config.data.max_history
    keys["output"] = output_of(config)
    if asked.is_elsewhere:
        keys |= dict(flat({"model": identity_digests(asked.model_manifest)}))
    for key in FILES:
        if path := getattr(config.recommend, key):
            keys[f"content of recommend.{key}"] = _digest_of(path)
    text = "\n".join(f"{key}={keys[key]}" for key in sorted(keys))
    return {"job": hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()}


def _digest_of(path: str) -> str:
    found = xxhash.xxh3_128()
    with path_of(path).open("rb") as file:
        while block := file.read(2**23):
            found.update(block)
    return str(found.hexdigest())


def targets_of(config: RunConfig) -> str:
    """What the rows are for, in words."""
    return "items" if config.recommend.what is Recommended.SIMILAR_ITEMS else "users"
