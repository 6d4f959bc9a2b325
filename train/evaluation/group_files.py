"""Columns of users and of items in files beside the log, by which targets are grouped.

N targets of a subset.
"""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from configs.errors import DataError
from configs.schema import RunConfig
from configs.schema.source import SourceConfig
from data_pipeline.prepare.read.arrow_types import words_of
from data_pipeline.prepare.read.named_columns import NamedFile, columns_in, opened, read_ids
from data_pipeline.store.manifest import Manifest, item_table
from data_pipeline.store.raw_users import RawUsers, raw_ids_of
from train.evaluation.user_ranks import RankedTargets


def refuse_missing_columns(config: RunConfig, names: Sequence[str]) -> None:
    """Raise :class:`DataError` for one of ``names`` that neither ``evaluation.user_file`` nor
    ``evaluation.item_file`` has, and for a file that cannot be read."""
    found = _where(config, names)
    if missing := [name for name in names if name not in found]:
        told = " and ".join(file.shown for file, _, _ in _files_of(config))
        raise DataError(
            f"evaluation.groups: neither {told} nor data.store={config.data.store} has {missing[0]!r} to group by; "
            f"leave it out, or name a file with that column by evaluation.user_file or evaluation.item_file"
        )


def columns_of_files(
    config: RunConfig, manifest: Manifest, targets: RankedTargets, names: Sequence[str]
) -> dict[str, pl.Series]:
    """``names`` in ``evaluation.user_file`` and ``evaluation.item_file``, by target [N], null where the file does not
    have the user or the item. Raises :class:`DataError` as files are read."""
    store, found, where = config.data.store, dict[str, pl.Series](), _where(config, names)
    for file, key, kind in _files_of(config):
        own = [name for name in names if where.get(name) == kind]
        if own and kind == "user":
            found |= _columns(file, key, RawUsers(store, manifest).raw_of(targets.user), own)
        elif own:
            found |= _columns(file, key, _raw_items(store, manifest).gather(targets.item), own)
    return found


def item_columns_of_file(config: RunConfig, manifest: Manifest, names: Sequence[str]) -> dict[str, pl.Series]:
    """Those of ``names`` that are columns of ``evaluation.item_file``, by dense id [V]. Raises as
    :func:`columns_of_files`."""
    found, where = _file_of(config, "item"), _where(config, names)
    own = [name for name in names if where.get(name) == "item"]
    return _columns(*found[:2], _raw_items(config.data.store, manifest), own) if found is not None and own else {}


def _raw_items(store: str, manifest: Manifest) -> pl.Series:
    return raw_ids_of(item_table(store, manifest, ["item", "raw_item"]).sort_by("item").column("raw_item"))


def _where(config: RunConfig, names: Sequence[str]) -> dict[str, str]:
    """Of those of ``names`` that a file has, whose file that is: the users' goes first."""
    found: dict[str, str] = {}
    for file, key, kind in _files_of(config):
        with opened(file, [key]) as log:
            there = columns_in(log)
        found |= {name: kind for name in names if name in there and name not in found}
    return found


def _files_of(config: RunConfig) -> list[tuple[NamedFile, str, str]]:
    return [file for file in (_file_of(config, "user"), _file_of(config, "item")) if file is not None]


def _file_of(config: RunConfig, kind: str) -> tuple[NamedFile, str, str] | None:
    """The file, its column of ids, and whose they are; None where none is named."""
    evaluation = config.evaluation
    path = evaluation.user_file if kind == "user" else evaluation.item_file
    columns = config.data.columns
    key = (evaluation.user_column or columns.user) if kind == "user" else (evaluation.item_column or columns.item)
    if not path:
        return None
    source = replace(SourceConfig(), missing=config.data.source.missing)
    keys = {key: f"evaluation.{kind}_column"}
    return NamedFile(key=f"evaluation.{kind}_file", path=path, keys_of_columns=keys, source=source), key, kind


def _columns(file: NamedFile, key: str, raw: pl.Series, names: Sequence[str]) -> dict[str, pl.Series]:
    """``names`` of each of the ids ``raw`` [N]; of an id with several rows the first counts."""
    rows = read_ids(file, key, raw.dtype, [name for name in names if name != key])
    if key in names:
        rows = rows.with_columns(pl.col("text").alias(key))
    rows = rows.filter(pl.col("id").is_not_null()).unique("id", keep="first", maintain_order=True)
    if not rows["id"].is_in(raw.unique().implode()).any():
        raise DataError(f"{file.shown}: none of its ids in {key} is that of a ranked user or item of the store")
    joined = raw.alias("id").to_frame().join(rows, on="id", how="left", maintain_order="left")
    for name in names:
        if joined[name].dtype.is_nested():
            raise DataError(
                f"{file.shown}: column {name!r} holds {words_of(joined[name].dtype)}; a group is one plain value"
            )
    return {name: joined[name] for name in names}
