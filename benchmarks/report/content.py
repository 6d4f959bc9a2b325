"""What a report says, before it is drawn: plain values that the page, the picture and the JSON are made of."""

from collections.abc import Sequence
from typing import Any

from benchmarks.report.details import (
    COUNTS,
    baselines_of,
    best_baseline,
    curves_of,
    environment_of,
    groups_of,
    spending_of,
)
from benchmarks.report.front import POINT, Point, beaten_by, front_of, steps_along
from benchmarks.report.gather import Gathered
from benchmarks.report.lists import lists_of
from benchmarks.report.options import ReportOptions
from benchmarks.report.pairs import paired_gain
from benchmarks.report.targets import targets_of
from benchmarks.report.words import COST_NAMES, amount, interval, joined, metric_name, score, step_sentence
from benchmarks.runs.protocol import protocol_of
from benchmarks.runs.recorded_run import RecordedRun
from benchmarks.runs.seeds import Configuration, configurations_of

MADE_BY = "shardrec report"
Content = dict[str, Any]


def content_of(gathered: Gathered, options: ReportOptions) -> Content:
    """All that the report of ``gathered`` says. Configurations are numbered by what they cost, the cheapest first;
    those without a recorded cost come last and are in no picture of costs."""
    metric, cost = options.metric, options.cost
    rows = [_row_of(each, metric, cost) for each in configurations_of(gathered.runs)]
    rows.sort(key=lambda row: (row["cost"] is None, row["cost"] or 0.0))
    for number, row in enumerate(rows, 1):
        row["number"] = number
    steps = _place_on_front(rows, metric, cost)
    baselines = baselines_of(gathered.runs, metric)
    return {
        "made_by": MADE_BY,
        "title": options.title or _title_of(rows, metric),
        "metric": metric,
        "metric_name": metric_name(metric),
        "cost": cost,
        "cost_name": COST_NAMES[cost],
        "point": POINT,
        "headline": _headline(rows, steps, baselines, metric, cost),
        "configurations": [{key: value for key, value in row.items() if key != "members"} for row in rows],
        "steps": steps,
        "total_cost": _total([run[cost] for row in rows for run in row["runs"]]),
        "left_out": [{"place": each.place, "why": each.why} for each in gathered.left_out],
        "curves": curves_of(rows, metric, cost),
        "spending": spending_of(rows),
        "targets": targets_of(rows),
        "baselines": baselines,
        "groups": groups_of(rows, metric),
        "lists": lists_of(rows),
        "protocol": protocol_of(gathered.runs[0]),
        "environment": environment_of(gathered.runs),
    }


def representative(members: Sequence[RecordedRun], metric: str) -> RecordedRun:
    """The run of a configuration that speaks for it: the median one by ``metric``, of two the better one."""
    ordered = sorted(members, key=lambda run: float(run.quality["test"][metric]))
    return ordered[len(ordered) // 2]


def _row_of(configuration: Configuration, metric: str, cost: str) -> dict[str, Any]:
    runs = [_run_of(run, metric) for run in configuration.runs]
    chosen = representative(configuration.runs, metric)
    return {
        "label": configuration.label,
        "members": configuration.runs,
        "quality": _mean([run["quality"] for run in runs]),
        "low": _mean([run["low"] for run in runs]),
        "high": _mean([run["high"] for run in runs]),
        "spread": configuration.spread(lambda run: float(run.quality["test"][metric])),
        "cost": _mean([run[cost] for run in runs]),
        **{
            key: _mean([run[key] for run in runs]) for key in ("usd", "device_hours", "kwh", "wall_s", "tokens_per_s")
        },
        "speaker": chosen.place,
        "verdict": chosen.quality.get("verdict", {}).get("overall"),
        "runs": runs,
    }


def _run_of(run: RecordedRun, metric: str) -> dict[str, Any]:
    cost, speed = run.summary.get("cost") or {}, run.summary.get("throughput") or {}
    low, high = run.quality.get("test_ci95", {}).get(metric, (None, None))
    return {
        "place": run.place,
        "seed": run.keys.get("seed"),
        "quality": float(run.quality["test"][metric]),
        "low": low,
        "high": high,
        **{key: cost.get(key) for key in ("usd", "device_hours", "kwh")},
        "wall_s": speed.get("wall_s"),
        "tokens_per_s": speed.get("tokens_per_s_per_device"),
        "tokens": speed.get("tokens"),
        "num_ranks": run.summary.get("world_size"),
        "steps": run.summary.get("steps"),
        "best_step": run.summary.get("best_step"),
        "ended_by": run.summary.get("ended_by"),
        "typed": " ".join(f"{key}={value}" for key, value in run.typed.items()),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """None where one of ``values`` was not recorded."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _total(values: Sequence[float | None]) -> float | None:
    """None where one of ``values`` was not recorded."""
    return None if None in values else sum(value for value in values if value is not None)


def _place_on_front(rows: list[dict[str, Any]], metric: str, cost: str) -> list[dict[str, Any]]:
    """Mark in ``rows`` which are on the front and which others beat; returns the steps along it."""
    priced = [row for row in rows if row["cost"] is not None]
    points = [Point(row["label"], row["cost"], row["quality"], row["low"], row["high"]) for row in priced]
    front = front_of(points)
    beaten = beaten_by(points, front)
    for row in rows:
        row["is_on_front"], row["beaten_by"] = False, None
    for place, row in enumerate(priced):
        row["is_on_front"] = place in front
        row["beaten_by"] = priced[beaten[place]]["number"] if place in beaten else None
        row["words"] = _beaten_words(row, priced[beaten[place]], cost) if place in beaten else ""
    return [
        _step_of(priced[each.cheaper], priced[each.better], each.gain, each.cost, each.cost_of_a_point, metric, cost)
        for each in steps_along(points, front)
    ]


def _step_of(
    cheaper: dict[str, Any],
    better: dict[str, Any],
    gain: float,
    price: float,
    of_a_point: float,
    metric: str,
    cost: str,
) -> dict[str, Any]:
    first, second = (representative(row["members"], metric) for row in (cheaper, better))
    paired = paired_gain(first, second, metric)
    step = {"gain": gain, "cost": price, "cost_of_a_point": of_a_point, **paired.bounds()}
    return {
        "from": cheaper["number"],
        "to": better["number"],
        **step,
        "not_paired": paired.why_not,
        "words": step_sentence(_named(cheaper), _named(better), metric, cost, step),
    }


def _named(row: dict[str, Any]) -> str:
    return f"{row['number']} ({row['label']})"


def _beaten_words(row: dict[str, Any], better: dict[str, Any], cost: str) -> str:
    """That ``better`` beats ``row``, and whether the intervals leave a doubt."""
    less = "costs as much" if better["cost"] == row["cost"] else f"costs {amount(better['cost'], cost)}"
    doubt = ""
    if row["high"] is not None and better["low"] is not None and better["low"] <= row["high"]:
        doubt = "; their intervals overlap, so it may be as good, but not for less"
    return f"{_named(better)} {less} and reaches {score(better['quality'])}{doubt}"


def _title_of(rows: list[dict[str, Any]], metric: str) -> str:
    return f"{metric_name(metric)} of {rows[0]['label']}" if len(rows) == 1 else "What quality costs"


def _headline(
    rows: list[dict[str, Any]], steps: list[dict[str, Any]], baselines: dict[str, Any], metric: str, cost: str
) -> list[str]:
    """The answer, in a few sentences."""
    best = max(rows, key=lambda row: row["quality"])
    price = "a cost that was not recorded" if best["cost"] is None else amount(best["cost"], cost)
    name = best["label"] if len(rows) == 1 else f"The best is {_named(best)}, which"
    reach = f"{metric_name(metric)} {score(best['quality'])} (95 % interval {interval(best['low'], best['high'])})"
    said = [f"{name} reaches {reach} for {price}."]
    if steps:
        last = steps[-1]
        price = amount(last["cost_of_a_point"], cost)
        doubt = ", if it gains anything" if (last["gain_low"] or 0.0) < 0 else ""
        said.append(f"The last step to it, from {last['from']}, costs {price} a point (0.01){doubt}.")
        said += _as_good_for_less(rows, best, metric, cost)
    if beaten := [row for row in rows if row["beaten_by"]]:
        numbers = joined([str(row["number"]) for row in beaten])
        are = "is" if len(beaten) == 1 else "are"
        said.append(f"{numbers} {are} not worth the cost: another costs no more and is better.")
    return [*said, *_against_counting(best, baselines, metric, "It" if len(rows) == 1 else "The best")]


def _as_good_for_less(rows: list[dict[str, Any]], best: dict[str, Any], metric: str, cost: str) -> list[str]:
    """The cheapest configuration of the front whose difference to the best may be chance, user by user."""
    for row in rows:
        if not row["is_on_front"] or row is best:
            continue
        first, second = (representative(each["members"], metric) for each in (row, best))
        found = paired_gain(first, second, metric).found
        if found is not None and found.low <= 0:
            price = amount(row["cost"], cost)
            return [f"{_named(row)} costs {price}, and user by user it is not distinguishable from the best."]
    return []


def _against_counting(best: dict[str, Any], baselines: dict[str, Any], metric: str, who: str) -> list[str]:
    found = best_baseline({"metric": metric, "baselines": baselines})
    if not found or best["low"] is None:
        return []
    name, value = found[0]
    gives = "what counting gives" if name in COUNTS else "what needs no training"
    said = "is above"
    if best["low"] <= value:
        said = "is BELOW" if best["high"] < value else "is not distinguishable from"
    return [f"{who} {said} {gives}: the best baseline, {name}, reaches {score(value)}."]
