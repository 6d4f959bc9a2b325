"""What runs with ``train.target`` have spent until validation reached it, over their seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

FIGURES = ("usd", "device_hours", "kwh", "wall_s", "samples", "tokens", "step")


def targets_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry for each configuration and target: how many of its runs have reached it, and of those the mean and the
    standard deviation of each of :data:`FIGURES`."""
    return [entry for row in rows for entry in _targets_of(row)]


def _targets_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    by_target: dict[str, list[dict[str, Any]]] = {}
    for run in row["members"]:
        if found := run.summary.get("target"):
            by_target.setdefault(f"{found['metric']}:{found['target']:g}", []).append(found)
    return [
        {
            "number": row["number"],
            "label": row["label"],
            "target": target,
            "num_runs": len(found),
            "num_reached": len(reached := [each for each in found if each.get("is_reached")]),
            "figures": {name: _mean_and_spread([each.get(name) for each in reached]) for name in FIGURES},
        }
        for target, found in by_target.items()
    ]


def _mean_and_spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """None where one of ``values`` was not recorded, or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return {"mean": None, "spread": None}
    return {"mean": statistics.fmean(known), "spread": statistics.stdev(known) if len(known) > 1 else None}
