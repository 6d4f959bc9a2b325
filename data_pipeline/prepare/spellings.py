"""Ids of a store that are one number in two spellings: they stay apart, and a person is told."""

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
        numbers = rows.select(text=text, number=whole_of_text(text)).drop_nulls()
        several = (
            numbers.group_by("number").agg("text").filter(pl.col("text").list.len() > 1).sort("number").collect()
        )
        if len(several):
            example = " and ".join(sorted(several["text"][0])[:2])
            progress.say(
                f"note: {len(several):,} numbers in column {name!r} (data.columns.{key}) are written in several "
                f"ways, such as {example}; they stay different {key}s, since the column holds text; write them "
                f"one way if they are not"
            )
