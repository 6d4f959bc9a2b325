"""Ids of a store that are one number or one word in two spellings: they stay apart, and a person is told."""

from pathlib import Path

import polars as pl

from configs.schema import DataConfig
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.prepare.read.id_values import whole_of_text


def tell_of_spellings(store: Path, config: DataConfig, progress: ProgressReporter) -> None:
    """Say of how many numbers the ids in ``store`` have more than one spelling."""
    ids = {
        ("user", config.columns.user): pl.scan_parquet(store / "histories" / "*.parquet", glob=True).select(
            "raw_user"
        ),
        ("item", config.columns.item): pl.scan_parquet(store / "items.parquet").select("raw_item"),
    }
    for (key, name), rows in ids.items():
        if rows.collect_schema().dtypes()[0] != pl.String:
            continue
        text = pl.nth(0)
        where = f"in column {name!r} (data.columns.{key})"
        if numbers := _of_numbers(rows, text):
            progress.say(
                f"note: {len(numbers):,} numbers {where} are written in several ways, such as {_example(numbers)}; "
                f"they stay different {key}s, since the column holds text; write them one way if they are not"
            )
        if words := _of_letters(rows, text):
            progress.say(
                f"note: {len(words):,} texts {where} look alike and are different characters, such as "
                f"{_example(words)}; they stay different {key}s; bring the log to one form (Unicode NFC) if they are "
                f"not"
            )


def _of_numbers(rows: pl.LazyFrame, text: pl.Expr) -> list[list[str]]:
    """The spellings of each number that has several, such as ``007`` and ``7``."""
    return _several(rows.select(text=text, value=whole_of_text(text)).drop_nulls())


def _of_letters(rows: pl.LazyFrame, text: pl.Expr) -> list[list[str]]:
    """Ids that look alike: a letter with an accent is one character or two (Unicode's NFC and NFD)."""
    is_ascii = text.str.len_bytes() == text.str.len_chars()
    return _several(rows.filter(~is_ascii).select(text=text, value=text.str.normalize("NFC")))


def _several(spellings: pl.LazyFrame) -> list[list[str]]:
    found = spellings.group_by("value").agg("text").filter(pl.col("text").list.len() > 1).sort("value").collect()
    return list(found["text"].to_list())


def _example(spellings: list[list[str]]) -> str:
    return " and ".join(each if each.isascii() else ascii(each) for each in sorted(spellings[0])[:2])
