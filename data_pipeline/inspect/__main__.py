"""``python -m data_pipeline.inspect STORE [--json] [key=value ...]``: tell what is in a store. Needs no torch."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from configs.errors import ConfigError, exit_code_of
from configs.paths import checked_path
from configs.terminal import require_shown
from configs.url import is_url
from data_pipeline.inspect.picture import HOW_TO_INSTALL, write_picture
from data_pipeline.inspect.samples import Titles, sample_histories
from data_pipeline.inspect.summary import summary_of
from data_pipeline.inspect.text import text_of

_NUM_EVENTS = 8


@dataclass(kw_only=True, slots=True)
class InspectOptions:
    """What the command line chooses; ``png`` is by default ``STORE.png``, beside a local store, else none."""

    store: str
    json: bool = False
    png: str = ""
    users: int = 3
    version: int = 0
    titles: str = ""
    titles_item: str = "item_id"
    titles_title: str = "title"


def main(words: Sequence[str]) -> int:
    """Print the summary of a store; returns the exit status: 0, or 2 after one line on stderr."""

    def shown() -> None:
        _inspect(options_of(words))
        require_shown()

    return exit_code_of(shown)


def options_of(words: Sequence[str]) -> InspectOptions:
    """The options that ``words`` choose; a store may be named by ``data.store``, as for other verbs.

    Raises :class:`ConfigError` for an unknown key and where no store is named, or several are.
    """
    words = [re.sub(r"\Adata\.(?=(store|version)=)", "", word) for word in words]
    named = [word for word in words if word.startswith("store=") or ("=" not in word and not word.startswith("-"))]
    stores = [word.removeprefix("store=") for word in named]
    if len(stores) != 1:
        raise ConfigError(f"inspect needs one STORE, got {stores}: shardrec inspect STORE [--json] [key=value ...]")
    store = checked_path("STORE", stores[0])
    beside = store if Path(store).name not in ("", "..") else str(Path(store).resolve())
    options = InspectOptions(store=store, png="" if is_url(store) else f"{beside}.png")
    known = [field.name for field in fields(InspectOptions) if field.name not in ("store", "json")]
    for word in words:
        key, is_pair, value = word.partition("=")
        if word == "--json":
            options.json = True
        elif is_pair and key in known:
            setattr(options, key, _value_of(key, value))
        elif word not in named:
            raise ConfigError(f"{word} is no option of inspect; it takes --json and {', '.join(known)} as key=value")
    return options


def _value_of(key: str, value: str) -> int | str:
    if key in ("users", "version"):
        if not re.fullmatch(r"[0-9]{1,6}", value):
            raise ConfigError(f"{key}={value[:50]} is no whole number up to 999,999")
        return int(value)
    return checked_path(key, value) if key in ("png", "titles") else value


def _inspect(options: InspectOptions) -> None:
    titles = None
    if options.titles:
        titles = Titles(path=options.titles, item_column=options.titles_item, title_column=options.titles_title)
    summary = summary_of(options.store, options.version)
    samples = sample_histories(options.store, options.users, _NUM_EVENTS, titles, options.version)
    if options.json:
        histories = [asdict(sample) for sample in samples]
        print(json.dumps({"store": options.store, **asdict(summary), "histories": histories}, indent=2))
        return
    print(text_of(options.store, summary, samples))
    if options.png:
        is_written = write_picture(summary, Path(options.png))
        print(f"picture {options.png}" if is_written else HOW_TO_INSTALL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
