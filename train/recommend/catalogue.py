"""What may be recommended, and what is known of it: raw ids, columns of an item file, values that share a limit."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from configs.errors import ConfigError, DataError
from configs.schema import RunConfig
from configs.schema.recommend import Recommended
from data_pipeline.prepare.read.arrow_types import words_of
from data_pipeline.prepare.read.id_values import kind_of
from data_pipeline.prepare.read.named_columns import read_ids
from data_pipeline.store.id_map import dense_ids
from data_pipeline.store.manifest import item_table
from train.recommend.asked import Asked
from train.recommend.id_files import RawItems, dense_items, item_column, named_file, raw_items

_NOT_OF_AN_ITEM = ("item", "raw_item")


@dataclass(kw_only=True, slots=True)
class Catalogue:
    """The items of a store, V in all, and which of them are candidates."""

    raw: pl.Series
    """Raw id by dense id."""
    candidate: np.ndarray
    """Dense ids, ascending int64 [C]."""
    value: np.ndarray
    """int64 [C]: those with the same share ``recommend.max_per_value``; one without a value shares it with none."""
    columns: pl.DataFrame
    """``recommend.item_columns`` by dense id; no columns where none are asked for."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of how files were read."""


def catalogue_of(asked: Asked) -> Catalogue:
    """What ``recommend`` says of items. Raises ConfigError and DataError for what a person can mend."""
    config, items = asked.config, raw_items(asked)
    wanted = config.recommend
    notes = list[str]()
    is_candidate = np.ones(len(items.raw), dtype=bool)
    if wanted.allowed_items:
        allowed, told = dense_items(config, "allowed_items", items)
        is_candidate[:] = False
        is_candidate[allowed] = True
        notes.append(told)
    if wanted.forbidden_items:
        forbidden, told = dense_items(config, "forbidden_items", items)
        is_candidate[forbidden] = False
        notes.append(told)
    columns = [
        *wanted.item_columns,
        *map(_column_of, wanted.where),
        *([wanted.diverse_by] if wanted.diverse_by else []),
    ]
    table = _item_columns(asked, items, list(dict.fromkeys(columns)))
    if wanted.where:
        is_candidate &= _fits(table, wanted.where)
    candidate = np.flatnonzero(is_candidate).astype(np.int64)
    _check_number(config, items, len(candidate))
    value = _values(table[wanted.diverse_by]) if wanted.diverse_by else np.arange(len(items.raw))
    return Catalogue(
        raw=items.raw,
        candidate=candidate,
        value=value[candidate],
        columns=table.select(wanted.item_columns),
        notes=[note for note in notes if note],
    )


def _check_number(config: RunConfig, items: RawItems, num_candidates: int) -> None:
    wanted = config.recommend
    keys = [key for key in ("allowed_items", "forbidden_items", "where") if getattr(wanted, key)]
    named = ", ".join(f"recommend.{key}" for key in keys)
    if num_candidates == 0:
        raise DataError(f"{named}: no item is left to recommend")
    most = num_candidates - (wanted.what is Recommended.SIMILAR_ITEMS)
    if wanted.k > most:
        left = f" that {named} leave" if keys else f" of {items.shown}"
        raise ConfigError(f"recommend.k={wanted.k} is more than the {most:,} candidates{left}; lower it")


def _column_of(condition: str) -> str:
    return condition.partition("=")[0].removesuffix("!").strip()


def _item_columns(asked: Asked, items: RawItems, names: Sequence[str]) -> pl.DataFrame:
    """``names`` by dense id, [V] rows each; null for an item that the file does not have."""
    config, wanted = asked.config, asked.config.recommend
    if not names:
        return pl.DataFrame()
    if not wanted.item_file:
        return _columns_of_store(asked, items, names)
    file, key = named_file(config, "item_file"), item_column(config)
    others = [name for name in names if name != key]
    found = read_ids(file, key, items.raw.dtype, others)
    if key in names:
        found = found.with_columns(found["text"].alias(key))
    dense = items.dense_of(found["id"])
    known = found.with_columns(pl.Series("item_of_store", dense)).filter(pl.col("item_of_store") >= 0)
    if not len(known):
        raise DataError(f"{file.shown}: none of its items is in {items.shown}")
    table = pl.DataFrame({"item_of_store": np.arange(len(items.raw), dtype=np.int64)}).join(
        known.unique("item_of_store", keep="first", maintain_order=True).select("item_of_store", *names),
        on="item_of_store",
        how="left",
        maintain_order="left",
    )
    return _plain(table.select(names), file.shown)


def _columns_of_store(asked: Asked, items: RawItems, names: Sequence[str]) -> pl.DataFrame:
    config = asked.config
    table = pl.from_arrow(item_table(config.data.store, asked.manifest, None))
    assert isinstance(table, pl.DataFrame), "a table is a frame"
    there = [name for name in table.columns if name not in _NOT_OF_AN_ITEM]
    for name in names:
        if name not in there:
            raise ConfigError(
                f"recommend.item_file is empty, and the items of data.store={config.data.store} have no column "
                f"{name!r}, only {', '.join(there)}; set recommend.item_file to the file that has it"
            )
    if asked.is_elsewhere:
        place = pl.Series(dense_ids(items.raw.to_arrow(), table["raw_item"].to_arrow()))
        table = table.select(pl.col(names).gather(place.set(place < 0, None)))
    return _plain(table.select(names), "items.parquet")


def _plain(table: pl.DataFrame, shown: str) -> pl.DataFrame:
    """Columns of numbers, texts, times and flags; what else a file may hold is refused."""
    for name, dtype in table.schema.items():
        is_text = dtype in (pl.String, pl.Categorical, pl.Enum)
        if not (is_text or dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.Boolean, pl.Null)):
            raise DataError(
                f"{shown}: column {name!r} is {words_of(dtype)}; a column of an item holds one plain value"
            )
    texts = [name for name, dtype in table.schema.items() if dtype in (pl.Categorical, pl.Enum, pl.Null)]
    return table.with_columns(pl.col(texts).cast(pl.String)) if texts else table


def _fits(table: pl.DataFrame, conditions: Sequence[str]) -> np.ndarray:
    """[V]: for each column one of its ``=`` values, if there are some, and none of its ``!=`` values."""
    fits = np.ones(len(table), dtype=bool)
    wanted, refused = dict[str, list[str]](), dict[str, list[str]]()
    for each in conditions:
        name, value = _column_of(each), kind_of(each.partition("=")[2])
        (refused if each.partition("=")[0].endswith("!") else wanted).setdefault(name, []).append(value)
    for name, values in wanted.items():
        fits &= _kinds(table[name]).is_in(values).fill_null(value=False).to_numpy()
    for name, values in refused.items():
        fits &= ~_kinds(table[name]).is_in(values).fill_null(value=False).to_numpy()
    return fits


def _kinds(column: pl.Series) -> pl.Series:
    """Values as text by which they are compared: ``1.0`` and ``1`` are one, ``True`` and ``true``."""
    text = column.cast(pl.String)
    unique = text.unique()
    kinds = pl.Series([None if each is None else kind_of(each) for each in unique], dtype=pl.String)
    return text.replace_strict(unique, kinds, return_dtype=pl.String)


def _values(column: pl.Series) -> np.ndarray:
    """[V]: one number for each different value; those without one have a number each."""
    kinds = _kinds(column)
    codes = kinds.rank("dense").cast(pl.Int64)
    alone = pl.Series(np.arange(len(kinds), dtype=np.int64) + len(kinds) + 1)
    return codes.fill_null(alone).to_numpy()
