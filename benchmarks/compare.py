"""``python -m benchmarks.compare RUN RUN ... key=value ...``: are the differences between runs more than chance?

Needs no torch: it reads the ranks that the runs have written down.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compare_table import comparison_lines
from benchmarks.ranked_run import OF_EVALUATION, OF_RUN, RankedRun, aligned, read_ranked_run
from benchmarks.runs.labels import labels_of
from benchmarks.runs.protocol import require_one_protocol
from benchmarks.runs.recorded_run import RecordedRun, read_run
from configs.atomic_files import write_json
from configs.errors import ConfigError, exit_code_of
from configs.paths import checked_path
from configs.process_exit import exit_at_once
from configs.schema.evaluation import RANK_METRICS, metric_name
from train.evaluation.paired import holm, paired_differences

_METRIC = re.compile(rf"({'|'.join(RANK_METRICS)})@[1-9][0-9]{{0,5}}|mrr")
COSTS = ("usd", "device_hours", "kwh")


@dataclass(slots=True)
class Options:
    """What may be set beside the runs."""

    metrics: list[str] = field(default_factory=lambda: ["ndcg@10", "hr@10"])
    split: str = "test"
    against: str = "first"
    ranks: str = OF_RUN
    samples: int = 1000
    seed: int = 0
    output: str = ""


def compare(places: Sequence[str], options: Options) -> dict[str, Any]:
    """The quality and cost of the runs in ``places``, and the differences of pairs of them.

    Raises :class:`ConfigError` where they cannot be compared, with the reason, :class:`DataError` for a file that
    cannot be read.
    """
    if len(places) < 2:
        raise ConfigError("compare needs two runs or more: shardrec compare RUN RUN ... [key=value ...]")
    runs = [read_run(place) for place in places]
    ranked = [read_ranked_run(run, options.split, options.ranks) for run in runs]
    if options.ranks == OF_RUN:
        require_one_protocol(runs)
    ranks = aligned(ranked)
    names = labels_of(runs)
    last = len(runs) if options.against == "all" else 1
    pairs = [(first, second) for first in range(last) for second in range(first + 1, len(runs))]
    differences = [
        {"first": first, "second": second, "metric": metric, **asdict(found)}
        for first, second in pairs
        for metric, found in paired_differences(
            ranks[first], ranks[second], options.metrics, options.samples, options.seed
        ).items()
    ]
    for each, adjusted in zip(differences, holm([each["p_value"] for each in differences]), strict=True):
        each["p_value_holm"] = adjusted
    return {
        "split": options.split,
        "num_users": len(ranks[0]),
        "protocol": ranked[0].protocol,
        "options": asdict(options),
        "runs": [_described(name, run, each) for name, run, each in zip(names, runs, ranked, strict=True)],
        "differences": differences,
        "cost_ratios": [_cost_ratios(runs, *pair) for pair in pairs],
    }


def options_of(words: Sequence[str]) -> tuple[list[str], Options]:
    """The runs and the options that ``words`` name. A word with ``=`` is an option unless it is a path that is there.

    Raises :class:`ConfigError`, which names the key.
    """
    places, options = list[str](), Options()
    known = list(Options.__dataclass_fields__)
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in known:
            _set(options, key, value)
        elif equals and not Path(word).exists() and "/" not in key:
            raise ConfigError(f"{key} is not a key of compare; use one of {', '.join(known)}")
        else:
            places.append(word)
    return places, options


def main(words: Sequence[str]) -> int:
    """0, or 2 after one line on stderr."""
    return exit_code_of(lambda: _compare(words))


def _compare(words: Sequence[str]) -> None:
    places, options = options_of(words)
    found = compare(places, options)
    print("\n".join(comparison_lines(found)))
    if options.output:
        try:
            write_json(Path(options.output), found)
        except OSError as error:
            raise ConfigError(f"output={options.output} cannot be written: {error.strerror}") from error
        print(f"written to {options.output}")


def _set(options: Options, key: str, value: str) -> None:
    match key:
        case "metrics":
            options.metrics = [_metric(each) for each in value.strip("[]").split(",")]
        case "samples" | "seed":
            low = 1 if key == "samples" else 0
            if not value.isdecimal() or not low <= int(value) <= 10**6:
                raise ConfigError(f"{key}={value} must be a whole number from {low} to {10**6}")
            setattr(options, key, int(value))
        case "output":
            options.output = str(checked_path("output", value))
        case _:
            choices = {
                "split": ("test", "valid"),
                "against": ("first", "all"),
                "ranks": (OF_RUN, OF_EVALUATION),
            }[key]
            if value not in choices:
                raise ConfigError(f"{key}={value} is unknown; use {' or '.join(choices)}")
            setattr(options, key, value)


def _metric(text: str) -> str:
    name = metric_name(text.strip())
    if not _METRIC.fullmatch(name):
        raise ConfigError(
            f"metrics={text} is unknown; use mrr, or {', '.join(RANK_METRICS)} or map with a cutoff, such as ndcg@10"
        )
    return name


def _described(name: str, run: RecordedRun, ranked: RankedRun) -> dict[str, Any]:
    cost = run.summary.get("cost") or {}
    return {
        "label": name,
        "place": run.place,
        "step": ranked.protocol.get("step"),
        "cost": {key: cost.get(key) for key in COSTS},
    }


def _cost_ratios(runs: Sequence[RecordedRun], first: int, second: int) -> dict[str, Any]:
    """What the second run cost of the first one; None where one of them has not recorded it, or 0."""
    costs = [runs[number].summary.get("cost") or {} for number in (first, second)]
    ratios = {key: costs[1][key] / costs[0][key] if all(cost.get(key) for cost in costs) else None for key in COSTS}
    return {"first": first, "second": second, **ratios}


if __name__ == "__main__":
    exit_at_once(main(sys.argv[1:]))
