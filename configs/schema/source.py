"""How the files of a log are written: their layout, their columns' names where they have none, their times."""

from dataclasses import dataclass, field
from enum import Enum

from configs.errors import ConfigError
from configs.schema.times import milliseconds_of


class Layout(str, Enum):
    """What a file of the log holds; ``auto`` goes by the ending of its name."""

    AUTO = "auto"
    PARQUET = "parquet"
    DELIMITED = "delimited"
    JSON_LINES = "json_lines"
    HISTORY_LINES = "history_lines"
    """A user and all items of it, in order, in one line; such logs have no times."""


class TimeUnit(str, Enum):
    """What a time that is a plain number counts since 1970-01-01 UTC; ``auto``: what gives plausible dates.

    ``yyyymmdd`` are dates written as a number, 20200131 or 20200131235959.
    """

    AUTO = "auto"
    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"
    YYYYMMDD = "yyyymmdd"


@dataclass(kw_only=True, slots=True)
class SourceConfig:
    """How to read the log's files; by default Parquet, CSV and JSON lines."""

    layout: Layout = Layout.AUTO
    """How files are written: auto goes by the ending of a file's name."""
    separator: str = ","
    """Between the fields of a delimited file: ``,`` ``::`` ``tab``, or ``whitespace`` for any run of blanks. More
    than one character: no quoting."""
    quote: str = '"'
    """Around a field that holds the separator; empty: a quote is a character like any other."""
    escape: str = "auto"
    """Before a quote that does not end its field, such as a backslash; ``auto``: a backslash where the file cannot be
    read without."""
    encoding: str = "auto"
    """Of text: ``utf-8``, ``latin-1``, ``cp1252``, ``utf-16`` ...; ``auto``: by its byte order mark, else UTF-8."""
    header: list[str] = field(default_factory=list)
    """Names of the columns of a delimited file without a header line, in order, such as [a,b,c]."""
    nested_events: str = ""
    """Key of the list of events in JSON lines that hold a whole session each; the user stands beside it."""
    time_unit: TimeUnit = TimeUnit.AUTO
    """What a time that is a plain number counts since 1970: auto looks for the unit in which the log's are dates."""
    earliest_time: str = "1970-01-01"
    """Earlier events are quarantined. Naive times are UTC."""
    latest_time: str = "2100-01-01"
    """Events from this time on are quarantined. Naive times are UTC."""
    snapshot: str = ""
    """Version of a Delta table, or snapshot, tag or branch of an Iceberg table, that is read; empty: the newest."""
    max_skipped_fraction: float = 0.05
    """Share of the bytes in a folder that may lie in files that nothing says to be a part of the log."""
    missing: list[str] = field(default_factory=lambda: ["NULL", "null", "\\N", "NaN", "nan", "None"])
    """Words that stand for no id."""

    def __post_init__(self) -> None:
        if not self.separator or len(self.quote) > 1:
            raise ConfigError(
                f"data.source.separator={self.separator!r} must not be empty and data.source.quote={self.quote!r} "
                f"must be one character or none"
            )
        if not 0 <= self.max_skipped_fraction <= 1:
            raise ConfigError(f"data.source.max_skipped_fraction={self.max_skipped_fraction} must lie in [0, 1]")
        if self.quote and self.quote == self.separator:
            raise ConfigError(f"data.source.quote and data.source.separator are both {self.quote!r}; change one")
        if self.escape != "auto" and (len(self.escape) > 1 or self.escape in (*self.quote, self.separator, "\n")):
            raise ConfigError(
                f"data.source.escape={self.escape!r} must be auto, nothing, or one character that is neither "
                f"data.source.quote={self.quote!r} nor data.source.separator={self.separator!r}"
            )
        self._check_encoding()
        if len(set(self.header)) != len(self.header):
            raise ConfigError(f"data.source.header={self.header} names a column twice")
        if not 0 <= self.earliest_ms < self.latest_ms:
            raise ConfigError(
                f"data.source.earliest_time={self.earliest_time} must lie in or after 1970 and before "
                f"data.source.latest_time={self.latest_time}"
            )

    def _check_encoding(self) -> None:
        if self.encoding == "auto":
            return
        try:
            "a".encode(self.encoding)
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"data.source.encoding={self.encoding} is unknown; set it to auto, utf-8, utf-16, latin-1, cp1252 or "
                f"another encoding that Python knows"
            ) from error

    @property
    def earliest_ms(self) -> int:
        """``earliest_time`` in milliseconds since 1970."""
        return milliseconds_of("data.source.earliest_time", self.earliest_time)

    @property
    def latest_ms(self) -> int:
        """``latest_time`` in milliseconds since 1970."""
        return milliseconds_of("data.source.latest_time", self.latest_time)
