"""The gain from one run to another, user by user, where both have written down the ranks of their targets."""

from dataclasses import dataclass

from benchmarks.ranked_run import OF_RUN, aligned, read_ranked_run
from benchmarks.runs.recorded_run import RecordedRun
from configs.errors import ConfigError, DataError
from configs.schema.evaluation import RANK_METRICS
from train.evaluation.paired import PairedDifference, paired_differences


@dataclass(frozen=True, slots=True)
class Gain:
    """``found`` is None where the runs cannot be paired, for the reason ``why_not``."""

    found: PairedDifference | None
    why_not: str = ""

    def bounds(self) -> dict[str, float | None]:
        """The 95 % interval of the gain over users, and its p-value."""
        if self.found is None:
            return {"gain_low": None, "gain_high": None, "p_value": None}
        return {"gain_low": self.found.low, "gain_high": self.found.high, "p_value": self.found.p_value}


def paired_gain(first: RecordedRun, second: RecordedRun, metric: str) -> Gain:
    """By how much ``second`` is better on the test targets."""
    for run in (first, second):
        if not run.has_ranks:
            return Gain(None, "not all of these runs have a ranks.parquet, which newer runs write")
    if metric.partition("@")[0] not in RANK_METRICS:
        return Gain(None, f"{metric} is not computed user by user")
    try:
        ranks = aligned([read_ranked_run(run, "test", OF_RUN) for run in (first, second)])
    except (ConfigError, DataError) as error:
        return Gain(None, str(error))
    return Gain(paired_differences(ranks[0], ranks[1], [metric])[metric])
