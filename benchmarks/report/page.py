"""The report as one HTML file that needs nothing else: no script, no request, no font."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from benchmarks.report import words
from benchmarks.report.figures import curves_figure, front_figure, phase_names, spending_figure

TEMPLATES = ("page.css", "page.html")


def page_of(content: dict[str, Any]) -> str:
    """The page that says ``content``; every text in it is escaped."""
    folder = files("benchmarks.report") / "templates"
    css, page = ((folder / name).read_text(encoding="utf-8") for name in TEMPLATES)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters = {
        "score": lambda value: _or_not(value, words.score),
        "plain": lambda value: _or_not(value, words.plain),
        "seconds": lambda value: _or_not(value, words.seconds),
        "gib": lambda value: _or_not(value, lambda size: f"{size / 2**30:.2f} GiB"),
        "percent": lambda value: _or_not(value, lambda share: f"{share:.1%}"),
    }
    environment.filters.update(filters)
    return environment.from_string(page).render(
        content=content,
        css=css,
        interval=words.interval,
        front=front_figure(content),
        curves=curves_figure(content),
        spending=spending_figure(content),
        phase_names=phase_names(content),
    )


def _or_not(value: Any, shown: Any) -> str:
    """What was not recorded is a dash."""
    return "–" if value is None else str(shown(float(value)))
