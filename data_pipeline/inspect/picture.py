"""The distributions of a store as one PNG, where matplotlib is installed."""

from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import DataError
from data_pipeline.inspect.summary import Distribution, StoreSummary, moment_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_INSTALL = "no picture: matplotlib is not installed; pip install 'shardrec[plots]'"


def write_picture(summary: StoreSummary, path: Path) -> bool:
    """Draw lengths, popularity and events over time to ``path``; False where there is no matplotlib.

    Raises ``DataError`` where ``path`` cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # an extra: everything else works without it
    except ImportError:
        return False
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    lengths, popularity, time = figure.subplots(1, 3)
    _draw(lengths, summary.history_length, "events of a user", "users")
    _draw(popularity, summary.item_popularity, "events of an item", "items")
    edges = summary.events_over_time.edges
    days = [(edge - edges[0]) / 86_400_000 for edge in edges]
    time.stairs(summary.events_over_time.counts, days, fill=True)
    time.set(xlabel=f"days since {moment_of(edges[0])} UTC", ylabel="events")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise DataError(
            f"png={path} cannot be written: {error.strerror}; name another file, or png= for none"
        ) from error
    return True


def _draw(axes: "Axes", distribution: Distribution, label: str, counted: str) -> None:
    axes.stairs(distribution.counts, distribution.edges, fill=True)
    axes.set(xscale="log", yscale="symlog", xlabel=label, ylabel=counted)
