"""Files of raw ids that a user names, as dense ids of the store."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from configs.errors import DataError
from configs.schema import RunConfig
from configs.schema.recommend import UnknownIds
from configs.schema.source import SourceConfig
from data_pipeline.prepare.read.named_columns import NamedFile, read_ids
from data_pipeline.store.id_map import dense_ids
from data_pipeline.store.manifest import item_table
from data_pipeline.store.raw_users import RawUsers, raw_ids_of
from train.recommend.asked import Asked

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class RawItems:
    """The raw id of every item by dense id, and the way back."""

    raw: pl.Series
    shown: str
    """Whose they are, in words."""

    def dense_of(self, raw: pl.Series) -> np.ndarray:
        """Dense ids of ``raw`` [N], -1 for one that the store does not have: int64."""
        return dense_ids(raw.to_arrow(), self.raw.to_arrow())


def raw_items(asked: Asked) -> RawItems:
    """Of the catalogue that the model knows."""
    table = item_table(asked.model.data.store, asked.model_manifest, ["raw_item"])
    return RawItems(raw_ids_of(table.column("raw_item")), asked.shown_catalogue)


def user_column(config: RunConfig) -> str:
    """The column of users in files."""
    return config.recommend.user_column or config.data.columns.user


def item_column(config: RunConfig) -> str:
    """The column of items in files."""
    return config.recommend.item_column or config.data.columns.item


def named_file(config: RunConfig, key: str, *, is_log: bool = False) -> NamedFile:
    """The file at ``recommend.<key>``; one that ``is_log`` is written as the log is."""
    source = config.data.source if is_log else replace(SourceConfig(), missing=config.data.source.missing)
    columns = {user_column(config): "recommend.user_column", item_column(config): "recommend.item_column"}
    path = str(getattr(config.recommend, key))
    return NamedFile(key=f"recommend.{key}", path=path, keys_of_columns=columns, source=source)


def dense_users(config: RunConfig, users: RawUsers) -> tuple[np.ndarray, str]:
    """Users of ``recommend.users``, each once, ascending int64, and what to tell of those that were skipped."""
    file = named_file(config, "users")
    found = read_ids(file, user_column(config), users.dtype)
    dense = users.dense_of(found["id"])
    shown = f"data.store={config.data.store}"
    told = refuse_unknown(config, file, "user", users.dtype, found, dense, shown)
    dense = np.unique(dense[dense >= 0])
    if not len(dense):
        raise DataError(f"{file.shown} names no user of {shown}")
    return dense, told


def dense_items(config: RunConfig, key: str, items: RawItems) -> tuple[np.ndarray, str]:
    """Items of the file at ``recommend.<key>``, each once, ascending int64, and what to tell of those skipped."""
    file = named_file(config, key)
    found = read_ids(file, item_column(config), items.raw.dtype)
    dense = items.dense_of(found["id"])
    told = refuse_unknown(config, file, "item", items.raw.dtype, found, dense, items.shown)
    dense = np.unique(dense[dense >= 0])
    if not len(dense):
        raise DataError(f"{file.shown} names no item of {items.shown}")
    return dense, told


def refuse_unknown(
    config: RunConfig,
    file: NamedFile,
    noun: str,
    id_type: pl.DataType,
    found: pl.DataFrame,
    dense: np.ndarray,
    whose: str,
) -> str:
    """Raise :class:`DataError` where ids are not ``whose``, or one line that says so where they are skipped."""
    unknown = found["text"].filter(pl.Series(dense < 0)).unique(maintain_order=True)
    if not len(unknown):
        return ""
    shown = ", ".join(map(str, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
    is_other_type = found["id"].null_count() == len(found) and id_type == pl.Int64
    kind = f", whose {noun} ids are whole numbers" if is_other_type else ""
    what = (
        f"{file.shown}: {len(unknown):,} of {found['text'].n_unique():,} {noun} ids are not in {whose}{kind} "
        f"({shown})"
    )
    if config.recommend.unknown_ids is UnknownIds.SKIP:
        return f"note: {what}; they are skipped"
    raise DataError(f"{what}; fix the file, or set recommend.unknown_ids=skip to leave them out")
