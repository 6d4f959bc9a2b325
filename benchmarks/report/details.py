"""What a report says beside the front: curves, spending, baselines, groups, environment. Nothing is invented: what a
run has not recorded is missing here and named on the page."""

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.runs.recorded_run import RecordedRun

MAX_CURVES = 8
"""More lines cannot be told apart."""
COUNTS = ("popular", "recent_popular", "markov")
"""Baselines that count; others are fitted in one go."""
_KNOWN = ("test", "test_ci95", "valid", "baselines", "verdict", "groups", "lists")
Rows = Sequence[dict[str, Any]]


def speaker_of(row: dict[str, Any]) -> RecordedRun:
    """The run that speaks for the configuration ``row``."""
    found: RecordedRun = next(run for run in row["members"] if run.place == row["speaker"])
    return found


def curves_of(rows: Rows, metric: str, cost: str) -> dict[str, Any]:
    """Validations of the run that speaks for each configuration, over what it had cost by then.

    The cost of a validation that was the best so far was recorded; that of another is the share of the run's whole
    cost that the elapsed time is of its whole time. At most eight lines: the front, then the best others.
    """
    ordered = sorted(rows, key=lambda row: (not row["is_on_front"], -row["quality"]))
    lines, missing = [], []
    for row in ordered:
        found = _curve_of(speaker_of(row), f"valid/{metric}", cost)
        if found:
            lines.append({"number": row["number"], "label": row["label"], "place": row["speaker"], "rows": found})
        else:
            missing.append(row["label"])
    lines, others = lines[:MAX_CURVES], [line["label"] for line in lines[MAX_CURVES:]]
    return {"lines": sorted(lines, key=lambda line: line["number"]), "missing": missing, "others": others}


def _curve_of(run: RecordedRun, name: str, cost: str) -> list[dict[str, float]]:
    whole, wall_s = (run.summary.get("cost") or {}).get(cost), (run.summary.get("throughput") or {}).get("wall_s")
    if not whole or not wall_s:
        return []
    known = {each["step"]: each[cost] for each in run.summary.get("time_to_quality") or [] if cost in each}
    return [
        {
            "step": row["step"],
            "cost": known.get(row["step"], row["elapsed_s"] * whole / wall_s),
            "quality": float(row[name]),
        }
        for row in run.history
        if name in row and "elapsed_s" in row
    ]


def spending_of(rows: Rows) -> dict[str, Any]:
    """Device-seconds by phase of the run that speaks for each configuration, and further costs of it."""
    found, missing = [], []
    for row in rows:
        cost = speaker_of(row).summary.get("cost") or {}
        phases = cost.get("phases_s")
        if phases:
            memory = cost.get("peak_memory_bytes")
            found.append(
                {
                    "number": row["number"],
                    "label": row["label"],
                    "phases_s": {name: float(value) for name, value in phases.items()},
                    "usd": cost.get("usd"),
                    "lost_device_s": cost.get("lost_device_s"),
                    "num_sessions": len(cost["sessions"]) if "sessions" in cost else None,
                    "mfu": cost.get("mfu"),
                    "peak_memory_bytes": max(memory) if memory else None,
                    "inference": cost.get("inference"),
                    "storage_bytes": cost.get("storage_bytes"),
                }
            )
        else:
            missing.append(row["label"])
    names = dict.fromkeys(name for row in found for name in row["phases_s"])
    order = sorted(names, key=lambda name: -sum(row["phases_s"].get(name, 0.0) for row in found))
    return {"phases": order, "rows": found, "missing": missing, "prices": _sources(rows)}


def _sources(rows: Rows) -> list[str]:
    """Where prices and watts are from, each once."""
    found = dict[str, None]()
    for row in rows:
        cost = speaker_of(row).summary.get("cost") or {}
        for key, value, words in (
            ("price", "usd_per_device_hour", "dollars for a device and an hour"),
            ("power", "watts", "watts for a device"),
        ):
            each = cost.get(key)
            if isinstance(each, dict) and isinstance(each.get(value), int | float):
                source = ", ".join(str(each[name]) for name in ("source", "date") if each.get(name))
                found[f"{each[value]:.4g} {words}: {source or 'no source recorded'}"] = None
    return list(found)


def baselines_of(runs: Sequence[RecordedRun], metric: str) -> dict[str, Any]:
    """Quality of each baseline. All runs of one protocol have the same; which do not say so is named."""
    rows = next((run.baselines for run in runs if run.baselines), {})
    return {
        "rows": {name: dict(row) for name, row in rows.items()},
        "metrics": [
            name
            for name in dict.fromkeys((metric, "ndcg@10", "hr@10", "mrr@10"))
            if any(name in r for r in rows.values())
        ],
        "missing": [run.place for run in runs if not run.baselines],
    }


def best_baseline(content: dict[str, Any]) -> list[tuple[str, float]]:
    """The best baseline's name and its value of the report's metric; empty where none was recorded."""
    metric = content["metric"]
    values = [(name, float(row[metric])) for name, row in content["baselines"]["rows"].items() if metric in row]
    return [max(values, key=lambda each: each[1])] if values else []


def groups_of(rows: Rows, metric: str) -> dict[str, Any]:
    """Quality by group of targets, side by side, and everything else that the runs tell of quality beside means."""
    kinds: dict[str, Any] = {}
    for row in rows:
        for kind, found in (speaker_of(row).quality.get("groups") or {}).items():
            table = kinds.setdefault(kind, {"groups": {}, "gaps": {}})
            for label, group in found.get("groups", {}).items():
                entry = table["groups"].setdefault(label, {"num_targets": group.get("num_targets"), "values": {}})
                low, high = group.get(f"{metric}_ci95", (None, None))
                entry["values"][row["number"]] = {"quality": group.get(metric), "low": low, "high": high}
            if gap := found.get("gaps", {}).get(metric):
                table["gaps"][row["number"]] = gap
    others: dict[str, dict[int, Any]] = {}
    for row in rows:
        quality = {name: value for name, value in speaker_of(row).quality.items() if name not in _KNOWN}
        for name, value in _numbers_in(quality, ""):
            others.setdefault(name, {})[row["number"]] = value
    return {"kinds": kinds, "others": others}


def _numbers_in(values: dict[str, Any], prefix: str) -> list[tuple[str, float]]:
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _numbers_in(value, f"{prefix}{name}, ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((f"{prefix}{name}", value))
    return found


def environment_of(runs: Sequence[RecordedRun]) -> dict[str, Any]:
    """Of the last session of each run, by name the values that there are; and the runs that have not recorded it."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for session in run.environment[-1:]:
            plain = (
                {**session, **session.get("versions", {})} if isinstance(session.get("versions"), dict) else session
            )
            for name, value in plain.items():
                if name not in ("started", "versions"):
                    found.setdefault(name, {})[value if isinstance(value, str) else json.dumps(value)] = None
    return {
        "values": {name: [each or "not known" for each in values] for name, values in found.items()},
        "missing": [run.place for run in runs if not run.environment],
    }
