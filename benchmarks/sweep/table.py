"""What a sweep prints: a line when a run has ended, and a table of its configurations at the end."""

from collections.abc import Sequence

from benchmarks.runs.recorded_run import RecordedRun
from benchmarks.runs.seeds import Configuration
from benchmarks.sweep.index import ENDED, METRIC, Index
from benchmarks.sweep.jobs import Job

MAX_LABEL = 60


def line_of(index: Index, job: Job, num_done: int, num_all: int, elapsed_s: float) -> str:
    """How ``job`` has ended, and how long the others will take."""
    state, why = index.states[job.name]
    told = why
    if state == ENDED:
        run = index.runs[job.name]
        usd, value = run.summary.get("cost", {}).get("usd"), _quality_of(run, METRIC)
        told = "" if value is None else f"{METRIC.upper()} {value:.4f}"
        told += f"  {usd:.4f} USD" if usd is not None else ""
    return f"{num_done}/{num_all}  {elapsed_s:,.0f} s  {job.name}  {state}  {told}".rstrip()


def table_of(configurations: Sequence[Configuration], metric: str) -> str:
    """A line a configuration, the best first: mean and standard deviation over its seeds, mean cost of a run."""
    rows = [_row_of(each, metric) for each in sorted(configurations, key=lambda each: -_mean_of(each, metric))]
    width = max([len("configuration"), *(min(len(row[0]), MAX_LABEL) for row in rows)])
    head = f"{'configuration':{width}}  {'seeds':>5}  {metric.upper():>17}  {'USD a run':>10}"
    lines = [f"{label:{width}}  {seeds:>5}  {told:>17}  {usd:>10}" for label, seeds, told, usd in rows]
    costs = [run.summary.get("cost", {}).get("usd") for each in configurations for run in each.runs]
    total = [] if None in costs else [f"{len(costs)} runs, {sum(costs):.4f} USD together"]
    return "\n".join([head, *lines, *total])


def _row_of(configuration: Configuration, metric: str) -> tuple[str, int, str, str]:
    values = [_quality_of(run, metric) for run in configuration.runs]
    told = "not recorded"
    if None not in values:
        spread = configuration.spread(lambda run: _quality_of(run, metric) or 0.0)
        told = f"{_mean_of(configuration, metric):.4f}" + (f" ± {spread:.4f}" if spread is not None else "")
    usd = [run.summary.get("cost", {}).get("usd") for run in configuration.runs]
    cost = "not known" if None in usd else f"{sum(usd) / len(usd):.5f}"
    return configuration.label, len(values), told, cost


def _mean_of(configuration: Configuration, metric: str) -> float:
    return configuration.mean(lambda run: _quality_of(run, metric) or 0.0)


def _quality_of(run: RecordedRun, metric: str) -> float | None:
    value = run.quality.get("test", {}).get(metric)
    return None if value is None else float(value)
