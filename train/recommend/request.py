"""What is known before a model is loaded: for whom, which items, and what is wrong with the request."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import polars as pl
import xxhash

from configs.errors import ConfigError, DataError
from configs.flatten import flat
from configs.load import load_config
from configs.saved_run import place_overrides
from configs.schema import RunConfig, Split, UserInput
from configs.schema.recommend import CountedHistory, Recommended
from data_pipeline.prepare.append import with_options_of
from data_pipeline.prepare.provenance import saved_provenance
from data_pipeline.prepare.read.named_columns import read_events
from data_pipeline.store.manifest import Manifest, identity_digests
from data_pipeline.store.paths import path_of
from data_pipeline.store.raw_users import RawUsers
from data_pipeline.stream.jagged import offsets_of
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
from train.run_dir.identity import load_run_config, refuse_other_evaluation

FILES = ("users", "histories", "allowed_items", "forbidden_items", "item_file")


@dataclass(kw_only=True, slots=True)
class Given:
    """Histories of a file."""

    raw: pl.Series
    """Raw ids of users, in the order of their first rows."""
    offsets: np.ndarray
    item: np.ndarray


@dataclass(kw_only=True, slots=True)
class Request:
    """What is asked for, in dense ids."""

    catalogue: Catalogue
    users: np.ndarray | None = None
    """Ascending dense ids; None: all."""
    given: Given | None = None
    notes: list[str] = field(default_factory=list)


def recommended_run(overrides: Sequence[str]) -> RunConfig:
    """The run in the ``run_dir`` of ``overrides``, with ``overrides`` on top; ConfigError where there is none."""
    return load_run_config(load_config(place_overrides(overrides)).run_dir, overrides)


def request_of(config: RunConfig, manifest: Manifest) -> Request:
    """Read the files of ``config.recommend``; ConfigError and DataError for all that can be wrong with them."""
    refuse_other_evaluation(config, identity_digests(manifest))
    refuse_foreign(config)
    config = _with_columns_of_the_log(config, manifest)
    wanted = config.recommend
    if config.data.split is Split.NONE and wanted.history is not CountedHistory.ALL:
        raise ConfigError(
            f"recommend.history={wanted.history.value}: run_dir={config.run_dir} was trained with data.split=none, "
            f"which holds no event out; leave it out"
        )
    if wanted.histories and config.model.user_input is not UserInput.NONE:
        raise ConfigError(
            f"recommend.histories={wanted.histories}: the run was trained with model.user_input="
            f"{config.model.user_input.value}, which needs users of its store; name some with recommend.users"
        )
    if wanted.histories and config.model.event_features:
        raise ConfigError(
            f"recommend.histories={wanted.histories}: the run reads model.event_features="
            f"{config.model.event_features}, which files of histories do not give; add the events to the store "
            f"(data.append=true) and train on it"
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
    request = Request(catalogue=catalogue_of(config, manifest))
    request.notes += request.catalogue.notes
    if wanted.users:
        request.users, told = dense_users(config, RawUsers(config.data.store, manifest))
        request.notes += [told] if told else []
    if wanted.histories:
        request.given, told = _given(config, manifest)
        request.notes += [told] if told else []
    return request


def _with_columns_of_the_log(config: RunConfig, manifest: Manifest) -> RunConfig:
    """``config`` with what the store remembers of its log, for whatever is as by default."""
    provenance = saved_provenance(config.data.store, manifest)
    return replace(config, data=with_options_of(provenance, config.data, ())) if provenance else config


def _given(config: RunConfig, manifest: Manifest) -> tuple[Given, str]:
    items, file = raw_items(config, manifest), named_file(config, "histories", is_log=True)
    types = RawUsers(config.data.store, manifest).dtype, items.raw.dtype
    events = read_events(file, user_column(config), item_column(config), config.data.columns.timestamp, types)
    raw = events["user"] if events["user"].null_count() == 0 else events["user_text"]
    run = events.select(pl.col("first_row").rle_id())["first_row"].to_numpy()
    is_first = np.diff(run, prepend=-1) > 0
    if not len(raw):
        raise DataError(f"{file.shown} holds no user")
    is_event = events["item_text"].is_not_null()
    dense = items.dense_of(events["item"])
    some = events.filter(is_event).select(pl.col("item").alias("id"), pl.col("item_text").alias("text"))
    told = refuse_unknown(config, file, "item", types[1], some, dense[is_event.to_numpy()])
    lengths = np.bincount(run[dense >= 0], minlength=int(run[-1]) + 1)
    return Given(raw=raw.filter(pl.Series(is_first)), offsets=offsets_of(lengths), item=dense[dense >= 0]), told


def job_of(config: RunConfig, manifest: Manifest, trained: dict[str, object]) -> dict[str, str]:
    """What decides every byte of the output; parts of another job are not gone on with."""
    wanted = asdict(config.recommend)
    for key in ("overwrite", "output"):
        del wanted[key]
    keys = dict(flat({"recommend": wanted, "trained": trained, **identity_digests(manifest)}))
    keys["evaluation.leave_out_seen"] = config.evaluation.leave_out_seen
    keys["data.max_history"] = config.data.max_history
    keys["output"] = output_of(config)
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
