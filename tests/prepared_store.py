"""A small store that is prepared from a made-up log."""

from pathlib import Path

from configs.schema import DataConfig
from configs.schema.synthetic import SyntheticConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.synthetic import write_log


def synthetic_store(folder: Path) -> str:
    """A store of 150 users and at most 80 items, prepared in ``folder``; returns its path."""
    log, store = str(folder / "log.parquet"), str(folder / "store")
    write_log(SyntheticConfig(num_users=150, num_items=80, mean_length=10), log)
    prepare(DataConfig(log=log, store=store))
    return store
