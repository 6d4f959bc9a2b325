"""What a user without a history gets: the items that most events of the store's last days are about."""

import numpy as np

from configs.schema import RunConfig
from data_pipeline.split import lengths_before, split_rule
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest
from data_pipeline.stream.jagged import jagged_index
from train.recommend.catalogue import Catalogue
from train.recommend.histories import SUBSETS

MS_PER_DAY = 24 * 3600 * 1000
USERS_AT_ONCE = 2**14


def popular_items(
    config: RunConfig, manifest: Manifest, catalogue: Catalogue, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64 and items int64 of one list, at most k: the candidates with most events of the last
    ``recommend.popular_days`` before the newest event that counts, by the rules of every other list. The score is the
    number of events. ``rows``: as of :class:`Rows`, where the store of ``manifest`` numbers items otherwise."""
    count = _counts(config, manifest)
    if rows is not None:
        count = np.bincount(rows[rows >= 0], weights=count[rows >= 0], minlength=len(catalogue.raw)).astype(np.int64)
    count = count[catalogue.candidate]
    order = np.lexsort([catalogue.candidate, -count])
    order = order[count[order] > 0]
    if config.recommend.diverse_by:
        order = order[_place_among_equals(catalogue.value[order]) < config.recommend.max_per_value]
    order = order[: config.recommend.k]
    return count[order].astype(np.float64), catalogue.candidate[order]


def _counts(config: RunConfig, manifest: Manifest) -> np.ndarray:
    """Events of each item, int64 [V]; of all days in a store without times."""
    subset = SUBSETS[config.recommend.history]
    rule = None if subset is None else split_rule(config.data, manifest)
    days = config.recommend.popular_days if manifest.has_times else 0
    reader = HistoryReader(config.data.store, manifest)
    count = np.zeros(manifest.num_items, dtype=np.int64)
    newest = manifest.last_time_ms if rule is None else _newest(reader, manifest, config)
    for start in range(0, manifest.num_users, USERS_AT_ONCE):
        histories = reader.read(start, min(start + USERS_AT_ONCE, manifest.num_users))
        item, time = histories.item, histories.timestamp
        if rule is not None:
            lengths = lengths_before(rule, subset, histories.offsets, time)
            counted = jagged_index(histories.offsets[:-1], lengths)
            item, time = item[counted], time[counted]
        if days:
            item = item[time > newest - days * MS_PER_DAY]
        count += np.bincount(item, minlength=manifest.num_items)
    return count


def _newest(reader: HistoryReader, manifest: Manifest, config: RunConfig) -> int:
    """Time of the newest event that counts."""
    subset, rule = SUBSETS[config.recommend.history], split_rule(config.data, manifest)
    newest = manifest.first_time_ms
    for offsets, time in reader.times():
        counted = jagged_index(offsets[:-1], lengths_before(rule, subset, offsets, time))
        newest = max(newest, int(time[counted].max(initial=newest)))
    return newest


def _place_among_equals(value: np.ndarray) -> np.ndarray:
    """How many of the same value lie before each."""
    order = np.argsort(value, kind="stable")
    ordered = value[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))[: len(ordered)]
    run = np.arange(len(ordered)) - np.repeat(starts, np.diff([*starts, len(ordered)]))
    place = np.empty_like(run)
    place[order] = run
    return place
