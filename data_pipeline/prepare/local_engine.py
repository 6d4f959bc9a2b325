"""The stages from files to histories, in Polars, NumPy and Arrow; each goes on where a killed prepare left it.

1. scan: rows, typed and judged, into files by ranges of raw user (``spill``), so that a range fits in memory;
2. where asked for: duplicates out, then the k-core, a range at a time;
3. items by descending count; every range sorted and written as histories.

In memory are a few ranges' events, a row an item, and the longest history.
"""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from configs.errors import DataError
from configs.schema import DataConfig
from data_pipeline.prepare.partition.filters import keep_core, move_distinct
from data_pipeline.prepare.partition.item_index import item_counts_of, item_table
from data_pipeline.prepare.partition.scan import (
    Source,
    check_kinds,
    check_some_rows,
    duplicate_key,
    max_rows_of,
    scan,
)
from data_pipeline.prepare.partition.spill_files import blocks_of, events_of, num_rows_of, ranges_in, split_large
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.quarantine import check_fraction
from data_pipeline.prepare.workspace import Workspace
from data_pipeline.prepare.write.feature_statistics import EventBlocks, stored_features
from data_pipeline.prepare.write.histories import HistoryCounts, write_histories, write_items
from data_pipeline.store.features import StoredFeature

ENGINE = f"polars-{pl.__version__}"


@dataclass(kw_only=True, slots=True)
class PreparedStore:
    """What was written into the folder of a workspace, by which ``engine``."""

    items: pl.DataFrame
    histories: HistoryCounts
    engine: str = ENGINE
    features: dict[str, StoredFeature] = field(default_factory=dict)
    time_unit: str = ""


def run_stages(
    sources: list[Source],
    known: pl.Series,
    config: DataConfig,
    work: Workspace,
    progress: ProgressReporter,
    features: dict[str, StoredFeature] | None = None,
) -> PreparedStore:
    """Write ``items.parquet`` and ``histories`` of ``sources``; ``known`` are raw items with dense ids 0, 1, ...,
    ``features`` those of a store that is appended to, whose statistics stay.

    The counts of what was read, filtered and quarantined stand in ``work.state``. Raises DataError for a log without
    rows, with too many broken ones, and of which the options leave nothing.
    """
    raw_items = _scan_to_spill(sources, known, config, work, progress)
    ranges = _deduplicate_and_k_core(len(raw_items), config, work, progress)
    blocks = (block for path in ranges for block in blocks_of(path))
    counts = item_counts_of(blocks, len(raw_items))
    items, dense = item_table(raw_items, counts, len(known))
    num_rows = num_events_left(items, config)
    write_items(work.store / "items.parquet", items)
    if features is None:
        events = EventBlocks(lambda: (block for path in ranges for block in blocks_of(path)))
        features = stored_features(config.features, events)
    folder = work.store / "histories"
    histories = write_histories(
        ranges, dense, items["raw_item"], folder, num_rows, progress, features, counts.has_finer_times
    )
    assert histories.num_events == num_rows, "every event that is counted must be written"
    return PreparedStore(items=items, histories=histories, features=features)


def num_events_left(items: pl.DataFrame, config: DataConfig) -> int:
    """Events in the table ``items``; :class:`DataError` where the options leave none."""
    num_rows = int(items["count"].sum())
    if num_rows == 0:
        raise DataError(
            f"no event of data.log={config.log} is left: data.event_types={config.event_types}, data.min_user_events="
            f"{config.min_user_events} and data.min_item_events={config.min_item_events} drop all; loosen them"
        )
    return num_rows


def _scan_to_spill(
    sources: list[Source], known: pl.Series, config: DataConfig, work: Workspace, progress: ProgressReporter
) -> pl.Series:
    """Stage 1; returns the raw item of each code."""
    state = work.state
    if state.stage == "scan":
        scan(sources, known, config, work, progress)
        if config.event_types:
            state.rows_filtered.setdefault("event_type", 0)
        check_some_rows(state.rows_read, config)
        check_fraction(state.rows_quarantined, state.rows_read, config.max_bad_fraction)
        check_kinds(state.kinds_seen, config, progress)
        state.stage = "spilled"
        work.save()
    split_large(work.spill / "ranges", max_rows_of(config))
    found = events_of(work.spill / "item_ids.block")
    assert found is not None, "the scan has written the known items, if none else"
    return found["id"]


def _deduplicate_and_k_core(
    num_items: int, config: DataConfig, work: Workspace, progress: ProgressReporter
) -> list[Path]:
    """Stage 2, the parts of it that are asked for and not done; returns the ranges that are left."""
    state = work.state
    folder = work.spill / ("distinct" if config.deduplicate else "ranges")
    if config.deduplicate and state.stage == "spilled":
        move_distinct(work.spill / "ranges", folder, duplicate_key(config), progress)
        state.rows_filtered["duplicate"] = state.rows_spilled - sum(map(num_rows_of, ranges_in(folder)))
        state.stage = "distinct"
        work.save()
    ranges = ranges_in(folder)
    if (config.min_user_events > 1 or config.min_item_events > 1) and state.stage != "core":
        keep_core(ranges, num_items, config.min_user_events, config.min_item_events)
        before = state.rows_spilled - state.rows_filtered.get("duplicate", 0)
        state.rows_filtered["min_events"] = before - sum(map(num_rows_of, ranges))
        state.stage = "core"
        work.save()
    return ranges
