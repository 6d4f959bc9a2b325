"""Lines of a user and all items of it in order, as BERT4Rec's and S3-Rec's files are: a row an item."""

from pathlib import Path

import polars as pl

from configs.schema.source import SourceConfig
from data_pipeline.prepare.read.delimited import LINE_COLUMN, scan_lines

_ITEMS = "raw_items"


def scan_history_lines(path: Path, separator: str, names: dict[str, str], source: SourceConfig) -> pl.LazyFrame:
    """Rows (user, item) as strings, in order; a user without items is one row without an item.

    ``separator`` is one of ``SourceConfig``; the comma, which is the default, stands for commas and blanks alike.
    """
    line = pl.col(LINE_COLUMN).str.strip_chars()
    if separator == "tab":
        fields = line.str.split("\t")
    elif separator in (",", "whitespace"):
        cut = r"[\s,]+" if separator == "," else r"\s+"
        fields = line.str.replace_all(cut, " ").str.strip_chars().str.split(" ")
    else:
        fields = line.str.split(separator)
    rows = scan_lines(path, source).select(fields.alias(LINE_COLUMN))
    user, items = pl.col(LINE_COLUMN).list.first(), pl.col(LINE_COLUMN).list.slice(1)
    rows = rows.select(user.alias(names["user"]), items.alias(_ITEMS)).explode(_ITEMS, empty_as_null=True)
    return rows.rename({_ITEMS: names["item"]})
