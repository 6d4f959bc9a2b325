"""The parts of a picture as inline SVG: scales, axes, marks. Colours are classes, which the page's style sets.

Every text goes through :class:`markupsafe.Markup`, which escapes it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 480, 320
"""Units of a picture; it is drawn as wide as its place, so text of 13 units is read on a phone of 360 pixels."""
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 12, 46
LOG_RATIO = 8
"""From this ratio of the largest to the smallest value on, costs are drawn on a logarithmic scale."""
COLOURS, DASHES = 8, ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from ``low`` to ``high`` on the units from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The place of ``value``."""
        low, high, at = (math.log10(each) if self.is_log else each for each in (self.low, self.high, value))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 2)

    def ticks(self) -> list[float]:
        """Round values within the scale, some four of them."""
        return _log_ticks(self.low, self.high) if self.is_log else _linear_ticks(self.low, self.high)


def linear(values: Iterable[float], start: float, end: float, *, from_zero: bool = False) -> Scale:
    """A scale that holds ``values`` with some room."""
    values = list(values)
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return Scale(0.0 if from_zero else max(low - room, 0.0) if low >= 0 else low - room, high + room, start, end)


def of_costs(values: Iterable[float], start: float, end: float) -> Scale:
    """A scale of costs: logarithmic where they are far apart."""
    values = list(values)
    low, high = min(values), max(values)
    if low > 0 and high / low >= LOG_RATIO:
        return Scale(low / 1.35, high * 1.35, start, end, is_log=True)
    return linear([*values, *([0.0] if low < high / 4 else [])], start, end)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    size = 10 ** math.floor(math.log10(rough))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [
            factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high
        ]
        if len(found) <= 6:
            return found
    return found[:: len(found) // 5]


def picture(description: str, parts: Iterable[Markup], height: int = HEIGHT) -> Markup:
    """The whole of it; ``description`` is read aloud in its place."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, height, description)
    return head + Markup("").join(parts) + Markup("</svg>")


def axes(x: Scale, y: Scale, x_name: str, y_name: str, x_label: Callable[[float], str]) -> Markup:
    """Grid, ticks and names of both axes."""
    bottom = HEIGHT - BOTTOM
    parts = [
        line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid") + text(LEFT - 6, y(tick) + 4, f"{tick:.3g}", "tick end")
        for tick in y.ticks()
    ]
    parts += [
        line(x(tick), TOP, x(tick), bottom, "grid") + text(x(tick), bottom + 16, x_label(tick), "tick middle")
        for tick in x.ticks()
    ]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name, "name middle"))
    parts.append(
        Markup('<text class="name middle" transform="translate(13 {}) rotate(-90)">{}</text>').format(
            (TOP + bottom) / 2, y_name
        )
    )
    return Markup("").join(parts)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(x1, y1, x2, y2, css)


def path(points: Sequence[tuple[float, float]], css: str, dash: str = "") -> Markup:
    """Straight lines through ``points``."""
    places = " ".join(f"{x},{y}" for x, y in points)
    dashes = Markup(' stroke-dasharray="{}"').format(dash) if dash else ""
    return Markup('<polyline points="{}" class="{}"{}/>').format(places, css, dashes)


def dot(x: float, y: float, radius: float, css: str) -> Markup:
    """A disc."""
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}"/>').format(x, y, radius, css)


def text(x: float, y: float, words: str, css: str) -> Markup:
    """Words, begun, centred or ended at a place by the class."""
    return Markup('<text x="{}" y="{}" class="{}">{}</text>').format(round(x, 2), round(y, 2), css, words)


def bar(x: float, y: float, width: float, height: float, css: str, title: str) -> Markup:
    """A box; ``title`` is shown where a pointer rests."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"><title>{}</title></rect>').format(
        x, y, round(width, 2), height, css, title
    )


def apart(places: Sequence[tuple[float, float]], width: float, height: float) -> list[tuple[float, float]]:
    """``places`` of labels of this size, moved down where one would lie on another that stands higher."""
    moved: dict[int, tuple[float, float]] = {}
    for index in sorted(range(len(places)), key=lambda index: places[index][1]):
        x, y = places[index]
        for other_x, other_y in sorted(moved.values(), key=lambda each: each[1]):
            if abs(other_x - x) < width and abs(other_y - y) < height:
                y = other_y + height
        moved[index] = (x, y)
    return [moved[index] for index in range(len(places))]


def numbered(x: float, y: float, number: int, css: str, title: str) -> Markup:
    """A disc with its number, which no colour is needed for."""
    return Markup('<g class="mark {}"><title>{}</title>{}{}</g>').format(
        css, title, dot(x, y, 9, "disc"), text(x, y + 4, str(number), "digit middle")
    )
