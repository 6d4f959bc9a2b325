"""What the lists of the runs are like, side by side (docs/evaluation.md defines the figures)."""

from collections.abc import Sequence
from typing import Any

from benchmarks.report.details import speaker_of

FIGURES = {
    "coverage": "share of the catalogue that is shown",
    "exposure_gini": "Gini coefficient of exposure",
    "novelty": "novelty, in bits",
    "diversity": "distance of pairs of a list",
    "popularity_lift": "popularity lift over the histories",
    "kl": "popularity calibration, Kullback-Leibler",
    "js": "popularity calibration, Jensen-Shannon",
}
Cell = dict[str, float | None]


def lists_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``figures``: by name, by the number of the configuration, value and 95 % interval. ``exposure``: by kind of
    group, by group, by that number, exposure against the share of the catalogue and of the demand."""
    figures: dict[str, dict[int, Cell]] = {}
    exposure: dict[str, dict[str, dict[int, dict[str, Cell]]]] = {}
    for row in rows:
        lists = speaker_of(row).quality.get("lists") or {}
        for name, value in {**lists, **(lists.get("popularity_calibration") or {})}.items():
            if name in FIGURES:
                figures.setdefault(FIGURES[name], {})[row["number"]] = _cell(value)
        for kind, groups in (lists.get("exposure") or {}).items():
            for label, group in groups.items():
                cells = {key: _cell(group.get(key)) for key in ("against_catalogue", "against_demand")}
                exposure.setdefault(kind, {}).setdefault(label, {})[row["number"]] = cells
    return {"figures": figures, "exposure": exposure}


def _cell(found: Any) -> Cell:
    """Of a figure, which may have an interval."""
    if isinstance(found, dict):
        low, high = found.get("ci95") or (None, None)
        return {"value": found.get("value"), "low": low, "high": high}
    return {"value": found, "low": None, "high": None}
