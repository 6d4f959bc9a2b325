"""Points in time that part a store's events by share: counted once, then kept beside the histories."""

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from configs.atomic_files import json_with_sum, parse_json_with_sum, write_json
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
            f"{manifest.num_events:,} events to find where the split is",
            stacklevel=3,
        )
    return found


def _saved(place: AnyPath) -> TimeBoundaries | None:
    """What the file holds; None where there is none, or one whose sum does not fit."""
    if not place.is_file():
        return None
    try:
        content = parse_json_with_sum(place.read_bytes(), place)
        outliers = content["outliers"]
        boundaries = [TimeBoundary(**boundary) for boundary in content["boundaries"]]
        return TimeBoundaries(boundaries, outliers and Outliers(**outliers))
    except (DataError, KeyError, TypeError):
        return None


def _save(place: AnyPath, found: TimeBoundaries) -> None:
    if not isinstance(place, Path):
        return place.write_bytes(json_with_sum(asdict(found)).encode())
    place.parent.mkdir(exist_ok=True)
    write_json(place, asdict(found))  # ranks of several machines may write at the same time
