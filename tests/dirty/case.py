"""One kind of broken input: how it is made and what `prepare` must do with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import polars as pl

from configs.schema import ColumnsConfig

Event = tuple[object, object, object]
START = 1_600_000_000_000
CLEAN: list[Event] = [(u, 10 + (u * k) % 7, START + 86_400_000 * k) for k in range(5) for u in range(1, 5)]
"""Twenty events (user, item, milliseconds at midnight UTC + 12:26:40) of four users, in order of arrival."""
AS_TEXT: list[Event] = [(str(user), str(item), time) for user, item, time in CLEAN]
TEXT_USERS: list[Event] = [(str(user), item, time) for user, item, time in CLEAN]
NAMES = ("user_id", "item_id", "timestamp")


class Outcome(str, Enum):
    """What becomes of the input."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Case:
    """``make`` writes the input below a folder and returns ``data.log``.

    ``events`` are what the store must hold, ``reasons`` the rows quarantined, ``filtered`` those left out by a rule;
    ``says`` are parts of the message of a refusal. ``rule`` is a sentence for the page of an accepted one.
    """

    name: str
    make: Callable[[Path], str]
    events: Sequence[Event] = field(default_factory=lambda: CLEAN)
    rule: str = ""
    reasons: dict[str, int] = field(default_factory=dict)
    filtered: dict[str, int] = field(default_factory=dict)
    says: tuple[str, ...] = ()
    source: dict[str, object] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    is_removed_once_open: bool = False
    must_run_unprivileged: bool = False

    @property
    def outcome(self) -> Outcome:
        """By what is expected of it."""
        if self.says:
            return Outcome.REFUSED
        return Outcome.QUARANTINED if self.reasons else Outcome.ACCEPTED

    @property
    def settings(self) -> list[str]:
        """The keys that the case sets, as a user would write them."""
        keys = [f"data.source.{key}={value}" for key, value in self.source.items()]
        keys += [f"data.columns.{key}={value}" for key, value in self.columns.items()]
        return keys + [f"data.{key}={value}" for key, value in self.options.items()]

    def columns_config(self) -> ColumnsConfig:
        """The names of the columns."""
        return ColumnsConfig(**self.columns)


def frame(events: Sequence[Event] = CLEAN, **types: pl.DataType) -> pl.DataFrame:
    """``events`` as a table of the three columns, of ``types`` where they are named."""
    schema = {name: types.get(name.removesuffix("_id")) for name in NAMES}
    return pl.DataFrame(events, schema=schema, orient="row", infer_schema_length=None, strict=False)


def parquet(table: Callable[[], pl.DataFrame], name: str = "log.parquet") -> Callable[[Path], str]:
    """Makes one Parquet file of ``table()``."""

    def make(folder: Path) -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table().write_parquet(path)
        return str(path)

    return make


def with_rows(*rows: Event, **types: pl.DataType) -> Callable[[Path], str]:
    """Makes one Parquet file of the clean events and ``rows`` after them."""
    return parquet(lambda: frame([*CLEAN, *rows], **types))


def csv_text(events: Sequence[Event] = CLEAN, separator: str = ",", header: bool = True) -> str:
    """``events`` as delimited text."""
    lines = [separator.join(NAMES)] if header else []
    return "\n".join(lines + [separator.join(map(str, event)) for event in events]) + "\n"


def json_text(events: Sequence[Event] = CLEAN) -> str:
    """``events`` as JSON lines."""
    return "".join(f'{{"user_id": {u}, "item_id": {i}, "timestamp": {t}}}\n' for u, i, t in events)


def content(data: str | bytes, name: str) -> Callable[[Path], str]:
    """Makes one file of ``data``."""

    def make(folder: Path) -> str:
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(folder / name)

    return make


def files(tables: dict[str, Callable[[], pl.DataFrame] | str | bytes], log: str = "log") -> Callable[[Path], str]:
    """Makes a folder of Parquet files and texts; the log is ``folder/log``."""

    def make(folder: Path) -> str:
        for name, data in tables.items():
            path = folder / "log" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(data):
                data().write_parquet(path)
            else:
                path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return str(folder / log)

    return make
