"""Running numbers of rows over all files: they stand for the times of a log that has none."""

import polars as pl

from data_pipeline.prepare.read.sources import LogFile, reading


def number_rows(files: list[LogFile], first: int) -> None:
    """Give each of ``files``, which come in order of arrival, the number of its first row, from ``first`` on."""
    for file in files:
        file.first_number = first
        with reading(file.path):
            first += int(file.scan.select(pl.len()).collect(engine="streaming").item())
