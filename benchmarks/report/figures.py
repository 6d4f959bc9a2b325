"""The pictures of a report: quality against cost, quality as a run goes, and where time went."""

from typing import Any

from markupsafe import Markup

from benchmarks.report.details import best_baseline
from benchmarks.report.svg import (
    BOTTOM,
    COLOURS,
    DASHES,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    apart,
    axes,
    bar,
    dot,
    line,
    linear,
    numbered,
    of_costs,
    path,
    picture,
    text,
)
from benchmarks.report.words import COST_NAMES, interval, plain, score, seconds

MAX_DOTS = 12
"""Validations of a line that are dots on it; of more, the line alone is clearer."""
MAX_PHASES = 7
"""Phases with a colour; the others are one."""
ROW = 30
"""Units of height of a row of bars."""


def front_figure(content: dict[str, Any]) -> Markup | None:
    """Every configuration by what it costs and gives, with intervals, the front, and the best baseline; None where no
    cost was recorded."""
    metric, rows = content["metric"], [row for row in content["configurations"] if row["cost"] is not None]
    if not rows:
        return None
    baselines = best_baseline(content)
    ends = [row[key] for row in rows for key in ("quality", "low", "high") if row[key] is not None]
    x = of_costs([row["cost"] for row in rows], LEFT, WIDTH - RIGHT)
    y = linear([*ends, *(value for _, value in baselines)], HEIGHT - BOTTOM, TOP)
    parts = [axes(x, y, COST_NAMES[content["cost"]], content["metric_name"], plain)]
    for name, value in baselines:
        parts.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), "baseline"))
        parts.append(text(WIDTH - RIGHT - 4, y(value) - 5, f"{name}, the best baseline", "tick end"))
    parts.append(_front_line(rows, x, y))
    parts += [_interval_of(row, x, y) for row in rows]
    parts += [dot(x(row["cost"]), y(run["quality"]), 2.5, "seed") for row in rows for run in row["runs"]]
    # Those that are worth it are drawn last, above the others.
    for row in sorted(rows, key=lambda row: bool(row["is_on_front"])):
        title = (
            f"{row['label']}: {score(row['quality'])}, 95 % {interval(row['low'], row['high'])}, {plain(row['cost'])}"
        )
        parts.append(
            numbered(x(row["cost"]), y(row["quality"]), row["number"], "on" if row["is_on_front"] else "off", title)
        )
    return picture(f"{metric} against {COST_NAMES[content['cost']]} of {len(rows)} configurations", parts)


def _front_line(rows: list[dict[str, Any]], x: Scale, y: Scale) -> Markup:
    """Stairs: between two of its points the cheaper one is what the money buys."""
    front = sorted((row for row in rows if row["is_on_front"]), key=lambda row: row["cost"])
    places = list[tuple[float, float]]()
    for row in front:
        if places:
            places.append((x(row["cost"]), places[-1][1]))
        places.append((x(row["cost"]), y(row["quality"])))
    places.append((WIDTH - RIGHT, places[-1][1]))
    return path(places, "front")


def _interval_of(row: dict[str, Any], x: Scale, y: Scale) -> Markup:
    if row["low"] is None or row["high"] is None:
        return Markup("")
    at, low, high = x(row["cost"]), y(row["low"]), y(row["high"])
    return (
        line(at, low, at, high, "bar")
        + line(at - 5, low, at + 5, low, "bar")
        + line(at - 5, high, at + 5, high, "bar")
    )


def curves_figure(content: dict[str, Any]) -> Markup | None:
    """Quality on validation events over what had been spent by then; None where no run has written one down."""
    lines = content["curves"]["lines"]
    points = [point for each in lines for point in each["rows"]]
    if not points:
        return None
    x = of_costs([point["cost"] for point in points], LEFT, WIDTH - RIGHT - 14)
    y = linear([point["quality"] for point in points], HEIGHT - BOTTOM, TOP)
    name = f"{content['metric_name']} on validation"
    parts = [axes(x, y, f"{COST_NAMES[content['cost']]} spent so far", name, plain)]
    ends = [(x(each["rows"][-1]["cost"]), y(each["rows"][-1]["quality"])) for each in lines]
    labels = apart(ends, 18, 14)
    for place, (each, label) in enumerate(zip(lines, labels, strict=True)):
        css = f"c{place % COLOURS}"
        places = [(x(point["cost"]), y(point["quality"])) for point in each["rows"]]
        parts.append(path(places, f"curve {css}", DASHES[place % len(DASHES)]))
        parts += [dot(*at, 3, f"fill {css}") for at in (places if len(places) <= MAX_DOTS else places[-1:])]
        parts.append(text(label[0] + 7, label[1] + 4, str(each["number"]), "tick"))
    return picture(f"{name} over cost of {len(lines)} runs", parts)


def spending_figure(content: dict[str, Any]) -> Markup | None:
    """A bar for each configuration, cut by phase; None where no run has recorded phases."""
    rows, phases = content["spending"]["rows"], content["spending"]["phases"]
    if not rows:
        return None
    height = TOP + ROW * len(rows) + BOTTOM
    shown = phases[:MAX_PHASES]
    longest = max(sum(row["phases_s"].values()) for row in rows)
    x = Scale(0.0, longest or 1.0, 46, WIDTH - RIGHT)
    parts = [text((LEFT + WIDTH) / 2, height - 8, "device time", "name middle")]
    for tick in x.ticks():
        parts.append(line(x(tick), TOP, x(tick), height - BOTTOM, "grid"))
        parts.append(text(x(tick), height - BOTTOM + 16, seconds(tick), "tick middle"))
    for place, row in enumerate(rows):
        top, at = TOP + place * ROW + 4, 0.0
        parts.append(text(38, top + 15, str(row["number"]), "tick end"))
        others = sum(value for name, value in row["phases_s"].items() if name not in shown)
        for index, (name, value) in enumerate(
            [*((name, row["phases_s"].get(name, 0.0)) for name in shown), ("the rest", others)]
        ):
            if value > 0:
                width = x(at + value) - x(at)
                parts.append(bar(x(at), top, width, ROW - 8, f"fill c{index}", f"{name}: {seconds(value)}"))
                parts.append(
                    text(x(at) + width / 2, top + 15, str(index + 1), "digit middle") if width > 12 else Markup("")
                )
                at += value
    return picture(f"device time by phase of {len(rows)} configurations", parts, height)


def phase_names(content: dict[str, Any]) -> list[str]:
    """The names of the colours and numbers of :func:`spending_figure`, in order."""
    phases = content["spending"]["phases"]
    return [*phases[:MAX_PHASES], *(["the rest"] if len(phases) > MAX_PHASES else [])]
