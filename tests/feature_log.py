"""A small store whose events have features of every kind, and a run that reads them."""

from pathlib import Path

import numpy as np
import polars as pl

from configs.load import load_config
from data_pipeline.prepare.prepare import prepare
from runs import run_here, tiny_run

FEATURES = ("kind", "shop", "price", "stars")
"""An indexed category of another column of the log, a hashed one, a normalised number, a number that is filled."""
OPTIONS = [
    *("data.features.kind.column=event_type", "data.features.kind.max_values=3"),
    *("data.features.shop.encode=hash", "data.features.shop.max_values=8"),
    *("data.features.price.type=number", "data.features.price.normalise=standard"),
    *("data.features.stars.type=number", "data.features.stars.fill=3", "data.features.stars.normalise=min_max"),
]


def log_with_features(num_users: int = 120) -> pl.DataFrame:
    """Kinds of which one is rare and some are missing, shops as numbers, prices of which some are missing, stars."""
    draw = np.random.default_rng(0)
    num = 12 * num_users
    kinds = draw.choice(["view", "buy", " cart", "return", ""], num, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    return pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in draw.integers(0, num_users, num)],
            "item_id": draw.integers(1, 60, num) * 10,
            "timestamp": 1_600_000_000_000 + np.arange(num) * 60_000,
            "event_type": kinds,
            "shop": draw.integers(0, 40, num) / 2,
            "price": pl.Series(np.where(draw.random(num) < 0.1, np.nan, draw.lognormal(size=num))),
            "stars": pl.Series([None if value == 0 else int(value) for value in draw.integers(0, 6, num)]),
        }
    )


def run_with_features(folder: Path, *overrides: str) -> Path:
    """A run in ``folder`` that reads every feature of the store beside it."""
    log_with_features().write_parquet(folder / "log.parquet")
    store = str(folder / "store")
    prepare(load_config([f"data.log={folder}/log.parquet", f"data.store={store}", *OPTIONS]).data)
    names = f"model.event_features=[{','.join(FEATURES)}]"
    assert run_here([*tiny_run(store, folder / "run", 4), names, "model.initial_std=0.5", *overrides]) == 0
    return folder / "run"


def raw_events(store: str) -> pl.DataFrame:
    """The events of ``store``, in order, with raw ids and features as they came, by the features' names."""
    columns = ["raw_user", "item", "timestamp", *(f"raw_{name}" for name in FEATURES)]
    rows = pl.read_parquet(f"{store}/histories/*.parquet", columns=columns).explode(columns[1:])
    items = pl.read_parquet(f"{store}/items.parquet", columns=["item", "raw_item"])
    named = rows.join(items.cast({"item": rows["item"].dtype}), on="item", maintain_order="left")
    return named.select(
        pl.col("raw_user").cast(pl.String).alias("user_id"),
        pl.col("raw_item").alias("item_id"),
        "timestamp",
        *(pl.col(f"raw_{name}").alias(name) for name in FEATURES),
    )
