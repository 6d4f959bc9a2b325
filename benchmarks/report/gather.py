"""The runs of a report: those that the user named, or all of a sweep, in groups that may be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.runs.protocol import differences, groups_of
from benchmarks.runs.recorded_run import SWEEP, RecordedRun, read_run
from benchmarks.sweep.index import ENDED, MARK, Index
from configs.errors import ConfigError, DataError
from configs.saved_run import CONFIG
from configs.url import is_url


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A run that is in no picture, and why."""

    place: str
    why: str


@dataclass(slots=True)
class Gathered:
    """``runs`` are of one protocol; what cannot stand beside them is in ``left_out``."""

    runs: list[RecordedRun]
    left_out: list[LeftOut] = field(default_factory=list)


def gather(places: Sequence[str], metric: str) -> Gathered:
    """The runs at ``places``, each a run or a sweep, that have ``metric`` and the protocol of most of them.

    Raises :class:`ConfigError` and :class:`DataError` for a place that is neither, an empty sweep, and where no run
    has the metric. A run of a sweep that has not ended is left out by name.
    """
    found = Gathered([])
    for place in dict.fromkeys(places):
        if is_sweep(place):
            runs_of_sweep(place, found)
        else:
            found.runs.append(read_run(place))
    found.runs = list({_one_name(run.place): run for run in reversed(found.runs)}.values())[::-1]
    _keep_ranked(found, metric)
    _keep_one_protocol(found)
    return found


def is_sweep(place: str) -> bool:
    """Whether ``place`` holds runs and is none itself."""
    folder = Path(place)
    try:
        if is_url(place) or not folder.is_dir() or (folder / CONFIG).is_file():
            return False
        return (folder / SWEEP).is_file() or any((path / CONFIG).is_file() for path in folder.iterdir())
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror}") from error


def _one_name(place: str) -> str:
    """The same for all names of one folder, so that no run counts twice."""
    return place if is_url(place) else str(Path(place).resolve())


def runs_of_sweep(place: str, found: Gathered) -> None:
    """Add the runs of the sweep in ``place``."""
    index = Index(Path(place))
    before = len(found.runs)
    found.runs += index.ended()
    found.left_out += [
        LeftOut(f"{place}/{name}", why) for name, (state, why) in index.states.items() if state != ENDED
    ]
    for name, why in _not_begun(Path(place), index):
        found.left_out.append(LeftOut(f"{place}/{name}", why))
    if len(found.runs) == before:
        raise ConfigError(f"{place} is a sweep without a run that has ended, so that there is nothing to report")


def _not_begun(folder: Path, index: Index) -> list[tuple[str, str]]:
    """Runs that the sweep has in its index and that are not there: they wait, or failed before they began."""
    if not (folder / SWEEP).is_file():
        return []
    try:
        table = pq.read_table(folder / SWEEP)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{folder / SWEEP} cannot be read: {error}") from error
    assert MARK in (table.schema.metadata or {}), "looked at by the index"
    rows = table.select(["run", "state", "why"]).to_pylist()
    return [(row["run"], row["why"] or row["state"]) for row in rows if row["run"] not in index.states]


def _keep_ranked(found: Gathered, metric: str) -> None:
    """Leave out runs without ``metric``."""
    known = {name for run in found.runs for name in run.quality.get("test", {})}
    without = [run for run in found.runs if metric not in run.quality.get("test", {})]
    if len(without) == len(found.runs) and known:
        raise ConfigError(f"metric={metric} is in no run; they have {', '.join(sorted(known))}")
    if len(without) == len(found.runs):
        raise ConfigError(
            f"{without[0].place} has no quality: no event was held out of its training (data.split=none)"
        )
    found.left_out += [LeftOut(run.place, f"it has no {metric} on test events") for run in without]
    found.runs = [run for run in found.runs if run not in without]


def _keep_one_protocol(found: Gathered) -> None:
    """Leave out the runs of other protocols than the most frequent one, with what differs."""
    first, *others = groups_of(found.runs)
    for run in (run for group in others for run in group):
        found.left_out.append(LeftOut(run.place, f"ranked by another protocol: {_words(first[0], run)}"))
    found.runs = first


def _words(drawn: RecordedRun, other: RecordedRun) -> str:
    return "; ".join(differences(drawn, other)).replace(" there", " in the runs of the pictures")
