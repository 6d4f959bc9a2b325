"""What the command line of a report says: which runs, by which metric and cost, and where the page goes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import ConfigError, require
from configs.paths import checked_path, refuse_unwritable
from configs.url import is_url

COSTS = ("usd", "device_hours", "kwh")
_METRIC = re.compile(r"[a-z0-9_]{1,20}(@[0-9]{1,6})?")


@dataclass(slots=True)
class ReportOptions:
    """``output`` is the page, NAME.html; NAME.png and NAME.json go beside it. Empty: beside what is reported on."""

    places: list[str] = field(default_factory=list)
    metric: str = "ndcg@10"
    cost: str = "usd"
    output: str = ""
    title: str = ""


def options_of(words: Sequence[str]) -> ReportOptions:
    """The options that ``words`` say; a word with ``=`` is a run where a path of that name is there.

    Raises :class:`ConfigError`, which names the word.
    """
    options, known = ReportOptions(), ("metric", "cost", "output", "title")
    for word in words:
        key, is_pair, value = word.partition("=")
        if is_pair and key in known:
            setattr(options, key, value)
        elif word.startswith("-") or (is_pair and "/" not in word and not Path(word).exists()):
            raise ConfigError(f"{word} is no option of report; it takes runs or a sweep, and {', '.join(known)}")
        else:
            options.places.append(checked_path("RUN", word))
    require(
        bool(options.places), "report needs runs or a sweep: shardrec report RUN RUN ..., or shardrec report SWEEP"
    )
    require(options.cost in COSTS, f"cost={options.cost} is unknown; set it to one of {', '.join(COSTS)}")
    options.metric = options.metric.lower()
    require(bool(_METRIC.fullmatch(options.metric)), f"metric={options.metric[:50]!r} is no metric, such as ndcg@10")
    options.output = _output(options)
    return options


def _output(options: ReportOptions) -> str:
    path = checked_path("output", options.output)
    if not path:
        is_one_folder = len(options.places) == 1 and not is_url(options.places[0])
        path = f"{options.places[0]}/report.html" if is_one_folder else "report.html"
    require(not is_url(path), f"output={path} is a URL; name a local file")
    require(path.endswith(".html"), f"output={path} must end with .html; a .png and a .json are written beside it")
    if is_set := bool(options.output):
        refuse_unwritable(f"output={path}", Path(path).parent)
    require(is_set or not Path(path).is_dir(), f"{path} is a folder; name another file by output=FILE.html")
    return path
