"""The distributions of a store as one PNG, where matplotlib is installed."""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import DataError
from data_pipeline.inspect.summary import Distribution, StoreSummary, moment_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TIME_UNITS = (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1000))
HOW_TO_INSTALL = "no picture: matplotlib is not installed; pip install 'shardrec[plots]'"


def write_picture(summary: StoreSummary, path: Path) -> bool:
    """Draw lengths, popularity and events over time to ``path``; False where there is no matplotlib.

    Raises ``DataError`` where ``path`` cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # an extra: everything else works without it
    except ImportError:
        return False
    figure = figure_of(summary, Figure(figsize=(12, 8), layout="constrained"))
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise DataError(
            f"png={path} cannot be written: {error.strerror}; name another file, or png= for none"
        ) from error
    return True


def figure_of(summary: StoreSummary, figure: "Figure") -> "Figure":
    """``figure`` with four panels: lengths of histories, popularity, the long tail, events over time."""
    manifest = summary.manifest
    what = f"{manifest.num_users:,} users, {manifest.num_items:,} items, {manifest.num_events:,} events"
    figure.suptitle(what)
    (lengths, popularity), (tail, time) = figure.subplots(2, 2)
    _draw(lengths, summary.history_length, "Length of histories", "events of a user", "number of users")
    _draw(popularity, summary.item_popularity, "Popularity of items", "events of an item", "number of items")
    _draw_long_tail(tail, summary)
    _draw_time(time, summary.events_over_time)
    return figure


def _draw(axes: "Axes", distribution: Distribution, title: str, label: str, counted: str) -> None:
    axes.stairs(distribution.counts, distribution.edges, fill=True)
    axes.set(title=title, xscale="log", yscale="symlog", xlabel=f"{label} (log)", ylabel=f"{counted} (log)")


def _draw_long_tail(axes: "Axes", summary: StoreSummary) -> None:
    items, events = zip(*summary.long_tail, strict=True)
    axes.plot([100 * share for share in items], [100 * share for share in events])
    axes.plot([0, 100], [0, 100], linestyle=":", color="grey", label="if all items were equally popular")
    axes.set(title="Share of events by items", xlabel="most popular items (%)", ylabel="their share of events (%)")
    axes.legend(loc="lower right")


def _draw_time(axes: "Axes", distribution: Distribution) -> None:
    """In the largest unit of which the span holds several."""
    edges = distribution.edges
    span = edges[-1] - edges[0]
    unit, length = next(((name, ms) for name, ms in TIME_UNITS if span >= 3 * ms), TIME_UNITS[-1])
    axes.stairs(distribution.counts, [(edge - edges[0]) / length for edge in edges], fill=True)
    title = f"Events over time, from {moment_of(edges[0])} UTC"
    axes.set(title=title, xlabel=f"time since the first event ({unit})", ylabel="number of events")
