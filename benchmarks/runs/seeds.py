"""Runs that differ in their seeds alone, as one configuration: its mean and how far its runs are apart."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.runs.labels import SEED, label_of, telling_keys, values_of
from benchmarks.runs.recorded_run import RecordedRun


@dataclass(frozen=True, slots=True)
class Configuration:
    """The runs of one choice of keys, in the order in which they were named."""

    label: str
    runs: list[RecordedRun]

    def figures(self, figure: Callable[[RecordedRun], float]) -> list[float]:
        """``figure`` of each run."""
        return [figure(run) for run in self.runs]

    def mean(self, figure: Callable[[RecordedRun], float]) -> float:
        """The mean of ``figure`` over the runs."""
        return statistics.fmean(self.figures(figure))

    def spread(self, figure: Callable[[RecordedRun], float]) -> float | None:
        """The standard deviation of ``figure`` over the runs, as of a sample; None for one run."""
        return statistics.stdev(self.figures(figure)) if len(self.runs) > 1 else None


def configurations_of(runs: Sequence[RecordedRun]) -> list[Configuration]:
    """``runs`` by all that tells them apart but the seed. A run of a configuration that occurs once, and runs that
    differ in nothing at all, stand alone, so that no run counts twice."""
    keys = [key for key in telling_keys(runs) if key != SEED]
    groups: dict[str, list[RecordedRun]] = {}
    for run in runs:
        groups.setdefault(label_of(values_of(run), keys), []).append(run)
    found = []
    for label, group in groups.items():
        seeds = [run.keys.get(SEED) for run in group]
        if len(set(seeds)) == len(seeds):
            found.append(Configuration(label or (group[0].name if len(group) == 1 else "all seeds"), group))
        else:
            found += [Configuration(f"{label} ({run.name})".strip(), [run]) for run in group]
    return found
