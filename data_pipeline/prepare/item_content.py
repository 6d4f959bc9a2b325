"""The file ``data.items`` into a store: read, cleaned, counted, joined by raw id and encoded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig
from configs.schema.item_features import ItemFeatureConfig, ItemFeatureType
from configs.schema.source import SourceConfig
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.content_columns import BROKEN, content_rows
from data_pipeline.prepare.read.feature_columns import event_column
from data_pipeline.prepare.read.named_columns import NamedFile
from data_pipeline.prepare.write.feature_statistics import EventBlocks, stored_features
from data_pipeline.store.feature_encoding import encoded
from data_pipeline.store.features import StoredFeature
from data_pipeline.store.id_map import dense_ids
from data_pipeline.store.item_content import ContentColumn, StoredContent, StoredItemFeature, content_digest
from data_pipeline.store.manifest import ITEM_CONTENT
from data_pipeline.store.text_ngrams import ngram_buckets
from data_pipeline.stream.jagged import offsets_of


def check_items_file(config: DataConfig) -> None:
    """Raise :class:`ConfigError` for keys of item content that do not fit, before anything is read."""
    if config.items and not config.item_features:
        raise ConfigError(
            f"data.items={config.items}: nothing of it is asked for; name what to keep of each item, such as "
            f"data.item_features.title.type=text"
        )
    if config.item_features and not config.items:
        raise ConfigError(
            f"data.item_features.{next(iter(config.item_features))}: data.items is empty; set it to the file that "
            f"has this column"
        )


def write_item_content(
    config: DataConfig,
    raw_items: pl.Series,
    folder: Path,
    existing: StoredContent | None,
    progress: ProgressReporter,
) -> StoredContent | None:
    """Write ``item_content.parquet`` of the items ``raw_items`` [V], by dense id, into ``folder``; None where
    ``config`` names no ``items``. Content of a store that is appended to, ``existing``, keeps its encoding.

    Raises :class:`DataError` for a file that cannot be used.
    """
    if not config.items:
        return None
    file = NamedFile(
        key="data.items",
        path=config.items,
        keys_of_columns={config.items_column or config.columns.item: "data.items_column"},
        source=replace(SourceConfig(), missing=config.source.missing),
    )
    rows = content_rows(file, config.items_column or config.columns.item, raw_items.dtype, config.item_features)
    known, counts = _joined(rows, raw_items)
    _check_broken(file, counts, config)
    before = existing.features if existing is not None else {}
    columns = {
        name: _encoded(known[event_column(name)], feature, before.get(name), f"{file.shown}: {name}")
        for name, feature in config.item_features.items()
    }
    _write(folder / ITEM_CONTENT, columns)
    content = StoredContent(
        features={name: column.feature for name, column in columns.items()},
        rows=counts,
        num_items_without=len(raw_items) - counts["used"],
        digest=content_digest(columns),
    )
    _tell(content, len(raw_items), file, progress)
    return content


def _joined(rows: pl.DataFrame, raw_items: pl.Series) -> tuple[pl.DataFrame, dict[str, int]]:
    """The features of each item [V], null where no sound row speaks of it, and what became of the rows."""
    counts = {"read": len(rows), "used": 0, "without_item": 0, "unknown_item": 0, "repeated_item": 0}
    broken = rows[BROKEN].drop_nulls().value_counts(sort=True)
    counts |= {f"broken_{reason}": count for reason, count in sorted(broken.iter_rows())}
    rows = rows.filter(pl.col(BROKEN).is_null())
    counts["without_item"] = int(rows["has_item"].not_().sum())
    rows = rows.filter("has_item")
    dense = dense_ids(rows["id"].to_arrow(), raw_items.to_arrow())
    rows = rows.with_columns(pl.Series("dense", dense)).filter(pl.col("dense") >= 0)
    counts["unknown_item"] = len(dense) - len(rows)
    first = rows.unique("dense", keep="first", maintain_order=True)
    counts["repeated_item"], counts["used"] = len(rows) - len(first), len(first)
    every = pl.DataFrame({"dense": np.arange(len(raw_items), dtype=np.int64)})
    return every.join(first, on="dense", how="left", maintain_order="left"), counts


def _check_broken(file: NamedFile, counts: dict[str, int], config: DataConfig) -> None:
    broken = {reason.removeprefix("broken_"): n for reason, n in counts.items() if reason.startswith("broken_")}
    if sum(broken.values()) > config.max_bad_fraction * counts["read"]:
        shown = ", ".join(f"{reason} {count:,}" for reason, count in broken.items())
        raise DataError(
            f"{file.shown}: {sum(broken.values()):,} of {counts['read']:,} rows are broken ({shown}), more than "
            f"data.max_bad_fraction={config.max_bad_fraction}; fix them, or raise it to do without them"
        )
    if not counts["used"]:
        raise DataError(
            f"{file.shown}: none of its {counts['read']:,} rows speaks of an item of data.store={config.store}; name "
            f"the column with the raw ids by data.items_column"
        )


def _encoded(
    values: pl.Series, feature: ItemFeatureConfig, before: StoredItemFeature | None, shown: str
) -> ContentColumn:
    """``values`` [V] by the statistics of ``before``, or by their own where there are none."""
    stored = replace(before) if before is not None else StoredItemFeature(type=feature.type)
    stored.num_missing = values.null_count()
    match feature.type:
        case ItemFeatureType.CATEGORY | ItemFeatureType.NUMBER:
            stored.values = stored.values or _statistics(values, feature)
            return ContentColumn(feature=stored, values=encoded(stored.values, values).to_numpy())
        case ItemFeatureType.CATEGORIES:
            lists = values.fill_null(pl.Series([[]], dtype=values.dtype))
            single = lists.explode(empty_as_null=False)
            stored.values, stored.separator = stored.values or _statistics(single, feature), feature.separator
            codes = encoded(stored.values, single).to_numpy()
            return ContentColumn(feature=stored, values=codes, offsets=offsets_of(lists.list.len().to_numpy()))
        case ItemFeatureType.TEXT:
            choices = (feature.ngrams, feature.max_ngram, feature.num_buckets)
            stored.ngrams, stored.max_ngram, stored.num_buckets = choices
            found = [ngram_buckets(text, *choices) if text else [] for text in values]
            codes = np.array([code for each in found for code in each], dtype=np.int32)
            return ContentColumn(
                feature=stored, values=codes, offsets=offsets_of(np.array([*map(len, found)], np.int64))
            )
        case ItemFeatureType.VECTOR:
            return _vectors(values, stored, shown)


def _statistics(values: pl.Series, feature: ItemFeatureConfig) -> StoredFeature:
    frame = values.alias(event_column("values")).to_frame()
    return stored_features({"values": feature.as_event_feature}, EventBlocks(lambda: [frame]))["values"]


def _vectors(values: pl.Series, stored: StoredItemFeature, shown: str) -> ContentColumn:
    widths = values.list.len().drop_nulls().unique()
    stored.width = stored.width or int(widths.max() or 0)  # type: ignore[arg-type]
    if len(widths) > 1 or (len(widths) and widths[0] != stored.width) or not stored.width:
        raise DataError(
            f"{shown} holds vectors of {', '.join(map(str, widths.sort())) or 'no'} numbers; each item's has as many"
            + (f", in this store {stored.width}" if stored.width else "")
        )
    found = np.zeros((len(values), stored.width))
    is_there = values.is_not_null().to_numpy()
    found[is_there] = values.drop_nulls().explode().to_numpy().reshape(-1, stored.width)
    if stored.scale == 1.0:
        stored.scale = float(np.sqrt((found[is_there] ** 2).sum(1).mean())) or 1.0
    return ContentColumn(feature=stored, values=(found / stored.scale).astype(np.float32))


def _write(path: Path, columns: dict[str, ContentColumn]) -> None:
    arrays = {}
    for name, column in columns.items():
        values = pa.array(column.values.reshape(-1))
        if column.offsets is not None:
            values = pa.ListArray.from_arrays(pa.array(column.offsets.astype(np.int32)), values)
        elif column.values.ndim == 2:
            values = pa.FixedSizeListArray.from_arrays(values, column.values.shape[1])
        arrays[name] = values
    pq.write_table(pa.table(arrays), path, compression="zstd", write_page_checksum=True)


def _tell(content: StoredContent, num_items: int, file: NamedFile, progress: ProgressReporter) -> None:
    rows = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in content.rows.items() if count)
    progress.say(
        f"{file.shown}: rows {rows}; {content.num_items_without:,} of {num_items:,} items of the store have no row"
    )
