"""Points in time that part a store's events by share: counted once, then kept beside the histories."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from configs.errors import DataError
from data_pipeline.store.event_times import Outliers, TimeBoundary, time_quantiles
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.paths import AnyPath, path_of


@dataclass(frozen=True, slots=True)
class TimeBoundaries:
    """The boundary of each fraction that was asked for, and the events whose times lie far from the rest."""

    boundaries: list[TimeBoundary]
    outliers: Outliers | None


_FOUND: dict[tuple[object, ...], TimeBoundaries] = {}
"""Of this process: a store that cannot be written is not read again with every validation."""


def time_boundaries(store: str, manifest: Manifest, fractions: list[float]) -> TimeBoundaries:
    """The points in time before which each of ``fractions`` of the store's events lies, exactly.

    The first use reads the timestamps of the whole store, three times or so, and writes ``STORE/lengths``; later uses
    read that file. A store that cannot be written is read again by each process, with a warning. The result depends
    on the store's content alone, so that ranks agree. A file that is damaged is made again.
    """
    key = (store, manifest.fingerprint, manifest.num_events, *fractions)
    if key not in _FOUND:
        shares = "-".join(map(str, fractions))
        place = path_of(store) / "lengths" / f"times-{shares}-{manifest.fingerprint[:16]}.json"
        _FOUND[key] = _saved(place) or _count(store, manifest, fractions, place)
    return _FOUND[key]


def _count(store: str, manifest: Manifest, fractions: list[float], place: AnyPath) -> TimeBoundaries:
    reader = HistoryReader(store, manifest)

    def times() -> Iterator[np.ndarray]:
        return (timestamp for _, timestamp in reader.times())

    try:
        found = TimeBoundaries(*time_quantiles(times, manifest.first_time_ms, manifest.last_time_ms, fractions))
    except DataError as error:
        raise DataError(f"data.store={store}: {error}; prepare the store again") from error
    try:
        _save(place, found)
    except (OSError, DataError) as error:
        warnings.warn(
            f"{place} cannot be written ({error}); every process reads the timestamps of all "
            f"{manifest.num_events:,} events to find where the split lies",
            stacklevel=3,
        )
    return found


def _saved(place: AnyPath) -> TimeBoundaries | None:
    """What the file holds; None where there is none, or one whose sum does not fit."""
    if not place.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(place.read_text())
        if content.pop("xxh3_64") != _sum_of(content):
            return None
        outliers = content["outliers"]
        boundaries = [TimeBoundary(**boundary) for boundary in content["boundaries"]]
        return TimeBoundaries(boundaries, outliers and Outliers(**outliers))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _save(place: AnyPath, found: TimeBoundaries) -> None:
    content = asdict(found)
    text = json.dumps({**content, "xxh3_64": _sum_of(content)}, indent=2) + "\n"
    if not isinstance(place, Path):
        return place.write_bytes(text.encode())
    place.parent.mkdir(exist_ok=True)
    partial = place.with_suffix(f".{_unique()}.partial")
    partial.write_text(text)
    partial.replace(place)


def _sum_of(content: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(content, sort_keys=True).encode())


def _unique() -> str:
    """Ranks of several machines may write at the same time."""
    return np.random.default_rng().bytes(8).hex()
