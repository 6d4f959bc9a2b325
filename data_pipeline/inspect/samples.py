"""A few histories of a store as a person reads them: raw ids or titles, and dates."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import DataError
from configs.schema.features import FeatureType
from data_pipeline.store.features import FIRST_VALUE, MISSING, OTHER, StoredFeature
from data_pipeline.store.file_sums import check_sum
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import HISTORIES, Manifest, item_table, load_manifest, paths_of
from data_pipeline.store.paths import AnyPath, parquet_source, path_of

TITLE = "title"


@dataclass(kw_only=True, slots=True)
class SampleHistory:
    """The last events of one user, oldest first: ``items`` are titles where they are known, else raw ids."""

    raw_user: str
    num_events: int
    items: list[str]
    times_ms: list[int]
    features: dict[str, list[str]] = field(default_factory=dict)
    """By name, the value of each event; of a category that is missing, nothing; of a number, what it became."""


@dataclass(kw_only=True, slots=True)
class Titles:
    """A table of items outside the store: ``path`` (Parquet or CSV), its column of raw ids and that of titles."""

    path: str
    item_column: str = "item_id"
    title_column: str = TITLE


def sample_histories(
    store: str, num_users: int, num_events: int, titles: Titles | None = None, version: int = 0
) -> list[SampleHistory]:
    """The last ``num_events`` events of ``num_users`` users, evenly spread over the store."""
    manifest = load_manifest(store, version)
    reader = HistoryReader(store, manifest, None)
    users = np.unique(np.linspace(0, manifest.num_users - 1, min(num_users, manifest.num_users)).astype(int))
    raw_users = _raw_users(store, manifest, users)
    names = _names_of_items(store, manifest, titles)
    samples = []
    for user, raw in zip(users, raw_users, strict=True):
        history = reader.read(int(user), int(user) + 1)
        last = slice(-num_events, None)
        samples.append(
            SampleHistory(
                raw_user=raw,
                num_events=len(history.item),
                items=names.gather(history.item[last].tolist()).to_list(),
                times_ms=history.timestamp[last].tolist(),
                features={
                    name: raw_values(manifest.features[name], values[last])
                    for name, values in history.features.items()
                },
            )
        )
    return samples


def raw_values(feature: StoredFeature, values: np.ndarray) -> list[str]:
    """What codes or normalised numbers [T] were in the log: rounded numbers; a hashed value has no way back."""
    if feature.type is FeatureType.NUMBER:
        shift, scale = feature.shift_and_scale
        return [f"{float(value) * scale + shift:.6g}" for value in values]
    names = {MISSING: "", OTHER: "(other)"}
    names |= {FIRST_VALUE + index: value for index, value in enumerate(feature.vocabulary)}
    return [names.get(int(code), f"(bucket {int(code) - FIRST_VALUE})") for code in values]


def _names_of_items(store: str, manifest: Manifest, titles: Titles | None) -> pl.Series:
    """[V] strings by dense id: the title, or the raw id where there is none."""
    items = _items(store, manifest)
    name = pl.col("raw_item").cast(pl.String)
    if titles is not None:
        table = _table(path_of(titles.path))
        for key, column in (("titles_item", titles.item_column), ("titles_title", titles.title_column)):
            if column not in table.columns:
                raise DataError(
                    f"{titles.path} has no column {column!r}; its columns are {', '.join(table.columns)}; "
                    f"set {key} to one of them"
                )
        known = table.select(raw=pl.col(titles.item_column).cast(pl.String), known_title=titles.title_column)
        items = items.with_columns(raw=name).join(known.unique("raw"), on="raw", how="left", maintain_order="left")
        return items.select(pl.coalesce(pl.col("known_title").cast(pl.String), name)).to_series()
    if TITLE in items.columns:
        return items.select(pl.coalesce(pl.col(TITLE).cast(pl.String), name)).to_series()
    return items.select(name).to_series()


def _items(store: str, manifest: Manifest) -> pl.DataFrame:
    items = pl.from_arrow(item_table(store, manifest, None))
    assert isinstance(items, pl.DataFrame), "a table is a frame"
    return items


def _table(path: AnyPath) -> pl.DataFrame:
    try:
        source = path if isinstance(path, Path) else path.read_bytes()
        return pl.read_csv(source, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(source)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}; fix it or name another") from error


def _raw_users(store: str, manifest: Manifest, users: np.ndarray) -> list[str]:
    """Raw ids of dense ``users``, ascending, from the row groups that hold them."""
    found: list[str] = []
    first = 0
    for path, expected in paths_of(store, manifest, HISTORIES):
        try:
            check_sum(path, expected)
            with pq.ParquetFile(parquet_source(path), page_checksum_verification=True) as file:
                for group in range(file.num_row_groups):
                    num_rows = file.metadata.row_group(group).num_rows
                    here = users[(users >= first) & (users < first + num_rows)] - first
                    if len(here):
                        column = file.read_row_group(group, columns=["raw_user"]).column(0)
                        found += [str(column[int(row)].as_py()) for row in here]
                    first += num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({error}); prepare the store again") from error
    return found
