"""Values by window as a picture of characters, which a terminal, a log and an e-mail can show."""

HEIGHT, WIDTH = 16, 96
"""Rows and columns of the picture; of more windows, neighbours are averaged."""
MARKS = "o*+x#@%&"
"""For the series in their order; where two fall on one place, the later one is seen."""


def curve(series: dict[str, list[float | None]]) -> list[str]:
    """A line of text a row: the values of ``series``, all as long, over their places; None is a gap."""
    columns = {name: _columns(values) for name, values in series.items()}
    there = [value for values in columns.values() for value in values if value is not None]
    if not there:
        return ["no window was scored"]
    top = max(max(there), 1e-9)
    width = max(map(len, columns.values()))
    picture = [[" "] * width for _ in range(HEIGHT)]
    marks = {name: MARKS[number % len(MARKS)] for number, name in enumerate(series)}
    for name in reversed(series):  # the models come first and are seen
        for column, value in enumerate(columns[name]):
            if value is not None:
                picture[HEIGHT - 1 - min(int(value / top * HEIGHT), HEIGHT - 1)][column] = marks[name]
    labels = [f"{top * (HEIGHT - row) / HEIGHT:.3f}" for row in range(HEIGHT)]
    legend = "  ".join(f"{mark} {name}" for name, mark in marks.items())
    lines = [f"{label:>7} |{''.join(cells)}".rstrip() for label, cells in zip(labels, picture, strict=True)]
    return [f"NDCG@10 by window: {legend}", *lines, f"{'0':>7} +{'-' * width}"]


def _columns(values: list[float | None]) -> list[float | None]:
    """At most ``WIDTH`` means of neighbours."""
    size = -(-len(values) // WIDTH) if values else 1
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    found = [[value for value in part if value is not None] for part in parts]
    return [sum(part) / len(part) if part else None for part in found]
