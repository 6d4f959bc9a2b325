"""Counts and distributions of a store, in one pass over its histories and with little memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest, item_counts, load_manifest

QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
TOP_FRACTIONS = (0.001, 0.01, 0.1, 0.5)
_USERS_PER_READ = 8192
_TIME_BINS = 24
_CURVE_POINTS = 64
_YEAR_10000_MS = 253_402_300_800_000


@dataclass(kw_only=True, slots=True)
class Distribution:
    """How many fall into each of the bins ``[edges[k], edges[k + 1])``; the last one includes its end."""

    edges: list[int]
    counts: list[int]


@dataclass(kw_only=True, slots=True)
class StoreSummary:
    """What a store holds; times are milliseconds."""

    manifest: Manifest
    history_length: Distribution
    """Users by the number of their events."""
    length_quantiles: dict[str, int]
    item_popularity: Distribution
    """Items by the number of their events."""
    popularity_quantiles: dict[str, int]
    top_shares: dict[str, float]
    """Share of all events that the most popular fraction of the items has."""
    long_tail: list[tuple[float, float]]
    """Share of the items, the most popular first, and the share of all events that they have; from 0 to 1."""
    events_over_time: Distribution


def summary_of(store: str, version: int = 0) -> StoreSummary:
    """Read a version of the store once, the newest for 0.

    Raises ``DataError`` for a folder that is no store and for files that cannot be read."""
    manifest = load_manifest(store, version)
    reader = HistoryReader(store, manifest)
    num_of_length = np.zeros(manifest.longest_history + 1, np.int64)
    edges = np.linspace(manifest.first_time_ms, manifest.last_time_ms + 1, _TIME_BINS + 1).astype(np.int64)
    over_time = np.zeros(_TIME_BINS, np.int64)
    for start in range(0, manifest.num_users, _USERS_PER_READ):
        histories = reader.read(start, min(start + _USERS_PER_READ, manifest.num_users))
        num_of_length += np.bincount(np.diff(histories.offsets), minlength=len(num_of_length))
        bins = np.searchsorted(edges, histories.timestamp, side="right") - 1
        over_time += np.bincount(np.clip(bins, 0, _TIME_BINS - 1), minlength=_TIME_BINS)
    popularity = np.sort(item_counts(store, manifest))[::-1]
    return StoreSummary(
        manifest=manifest,
        history_length=by_doubling(num_of_length),
        length_quantiles=quantiles_of(num_of_length),
        item_popularity=by_doubling(np.bincount(popularity)),
        popularity_quantiles=quantiles_of(np.bincount(popularity)),
        top_shares=top_shares_of(popularity),
        long_tail=long_tail_of(popularity),
        events_over_time=Distribution(edges=edges.tolist(), counts=over_time.tolist()),
    )


def by_doubling(num_of_value: np.ndarray) -> Distribution:
    """Bins 1, 2-3, 4-7, ... of whole values of which ``num_of_value[v]`` are v; the value 0 is left out."""
    edges = [1]
    while edges[-1] < len(num_of_value):
        edges.append(2 * edges[-1])
    if len(edges) == 1:
        edges.append(2)
    counts = [int(num_of_value[low:high].sum()) for low, high in pairwise(edges)]
    return Distribution(edges=edges, counts=counts)


def quantiles_of(num_of_value: np.ndarray, fractions: Sequence[float] = QUANTILES) -> dict[str, int]:
    """The smallest value that at least a fraction of all values do not exceed, by the fraction in percent."""
    cumulative = np.cumsum(num_of_value)
    ranks = [max(1, int(np.ceil(fraction * cumulative[-1]))) for fraction in fractions]
    return {
        f"{fraction:.0%}": int(np.searchsorted(cumulative, rank))
        for fraction, rank in zip(fractions, ranks, strict=True)
    }


def top_shares_of(popularity: np.ndarray) -> dict[str, float]:
    """Share of events of the most popular items, ``popularity`` [V] being descending; at least one item each."""
    total = max(1, int(popularity.sum()))
    return {
        f"{fraction:.1%}": float(popularity[: max(1, round(fraction * len(popularity)))].sum() / total)
        for fraction in TOP_FRACTIONS
    }


def long_tail_of(popularity: np.ndarray) -> list[tuple[float, float]]:
    """The curve of ``popularity`` [V], descending: few points, close to each other where the items are popular."""
    num_items, total = len(popularity), max(1, int(popularity.sum()))
    cumulative = np.concatenate([[0], np.cumsum(popularity)])
    steps = np.unique(np.concatenate([[0], np.geomspace(1, max(num_items, 1), _CURVE_POINTS).astype(np.int64)]))
    return [(float(step / max(num_items, 1)), float(cumulative[step] / total)) for step in steps if step <= num_items]


def moment_of(milliseconds: int) -> str:
    """The moment in UTC to the second, or the bare number where no calendar has it."""
    if milliseconds >= _YEAR_10000_MS:
        return f"{milliseconds} ms"
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
