"""Quality against cost as a PNG, where matplotlib is installed: for slides, papers and mails that show no pages."""

import io
from typing import TYPE_CHECKING, Any

from benchmarks.report.details import best_baseline
from benchmarks.report.svg import LOG_RATIO
from benchmarks.report.words import COST_NAMES, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_INSTALL = "no PNG: matplotlib is not installed; pip install 'shardrec[plots]'"
BLUE, GREY = "#0072b2", "#59636e"


def picture_of(content: dict[str, Any]) -> bytes | None:
    """The PNG; None without matplotlib, or where no run has recorded what it cost."""
    rows = [row for row in content["configurations"] if row["cost"] is not None]
    if not rows:
        return None
    try:
        from matplotlib.figure import Figure  # an extra: everything else works without it
    except ImportError:
        return None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    _draw(axes, rows, content)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120, metadata={"Software": content["made_by"]})
    return file.getvalue()


def _draw(axes: "Axes", rows: list[dict[str, Any]], content: dict[str, Any]) -> None:
    front = [row for row in rows if row["is_on_front"]]
    axes.step([row["cost"] for row in front], [row["quality"] for row in front], where="post", color=BLUE)
    for row in rows:
        colour = BLUE if row["is_on_front"] else GREY
        if row["low"] is not None and row["high"] is not None:
            axes.vlines(row["cost"], row["low"], row["high"], color=colour, linewidth=1.2)
        axes.plot(row["cost"], row["quality"], "o", color=colour, markersize=11)
        place = (row["cost"], row["quality"])
        axes.annotate(str(row["number"]), place, ha="center", va="center", color="white", fontsize=8)
    for name, value in best_baseline(content):
        axes.axhline(value, color=GREY, linestyle="--", linewidth=1)
        axes.text(
            1,
            value,
            f"{name}, the best baseline ",
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="bottom",
            fontsize=8,
        )
    names = [f"{row['number']}  {row['label']}" for row in rows]
    axes.text(1.02, 1, _escaped("\n".join(names[:30])), transform=axes.transAxes, va="top", fontsize=8)
    costs = [row["cost"] for row in rows]
    if min(costs) > 0 and max(costs) / min(costs) >= LOG_RATIO:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, place: plain(value))
    axes.set_xlabel(COST_NAMES[content["cost"]])
    axes.set_ylabel(content["metric_name"])
    axes.set_title(_escaped(content["title"]))
    axes.grid(visible=True, alpha=0.3)


def _escaped(text: str) -> str:
    """``text`` without what matplotlib would take for mathematics."""
    return text.replace("$", r"\$")
