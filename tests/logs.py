"""Logs and stores for the tests of `prepare`: made-up rows, a real log, and what a store holds byte for byte."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs.schema.features import Encode, FeatureConfig, FeatureType, Normalise
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.store.manifest import load_manifest

SHARED = Path(__file__).parents[2] / "shared" / "data"
ML100K = SHARED / "ml100k" / "log.parquet"
needs_ml100k = pytest.mark.skipif(not ML100K.exists(), reason=f"{ML100K} is not on this machine")
IDS = {
    "dense": lambda ids: ids,
    "wide": lambda ids: (ids * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**62,
    "string": lambda ids: np.array([f"ü{id}" for id in ids]),
}
"""Kinds of raw ids: small integers, integers that fit in no table, strings."""
FEATURES = {
    "kind": FeatureConfig(column="event_type", max_values=3),
    "shop": FeatureConfig(encode=Encode.HASH, max_values=5, fill="no shop"),
    "price": FeatureConfig(type=FeatureType.NUMBER, normalise=Normalise.STANDARD),
    "stars": FeatureConfig(type=FeatureType.NUMBER, normalise=Normalise.MIN_MAX, fill="-1"),
    "raised": FeatureConfig(column="price", type=FeatureType.NUMBER),
}
"""What may be asked of the columns of ``feature_log``."""


def random_log(
    num: int, seed: int = 0, kind: str = "dense", num_users: int = 40, num_items: int = 30
) -> pl.DataFrame:
    """``num`` events at 50 times, so that ties, late events and duplicates are many; some users have most events."""
    draw = np.random.default_rng(seed)
    users = (num_users * draw.random(num) ** 2).astype(np.int64)
    items = draw.integers(0, num_items, num)
    types = np.where(items % 3 == 0, "buy", "view")
    names = ("user_id", "item_id", "timestamp", "event_type")
    return pl.DataFrame(
        dict(zip(names, (IDS[kind](users), IDS[kind](items), draw.integers(0, 50, num), types), strict=True))
    )


def feature_log(num: int, seed: int = 0) -> pl.DataFrame:
    """``num`` events at 30 times with ties, of whose features some are null, NaN or a word for nothing."""
    draw = np.random.default_rng(seed)
    kinds = draw.choice(["view", "cart", "buy", "share", "gift", None], num, p=[0.5, 0.2, 0.1, 0.07, 0.03, 0.1])
    shops = draw.choice([*(f"é{k}" for k in range(12)), "NULL", ""], num)
    price = np.where(draw.random(num) < 0.2, np.nan, np.exp(3 * draw.standard_normal(num)))
    stars = [None if value == 0 else int(value) for value in draw.integers(0, 6, num)]
    return pl.DataFrame(
        {
            "user_id": draw.integers(0, 40, num),
            "item_id": draw.integers(0, 25, num),
            "timestamp": draw.integers(0, 30, num),
            "event_type": pl.Series(kinds.tolist(), dtype=pl.String),
            "shop": shops.tolist(),
            "price": pl.Series(price.tolist(), dtype=pl.Float64),
            "stars": pl.Series(stars, dtype=pl.Int64),
        }
    )


def files_of(store: Path) -> dict[str, bytes]:
    """Every file below ``store`` and what is in it."""
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def newest_of(store: Path) -> Path:
    """The folder with the own files of the store's newest version."""
    version = load_manifest(str(store)).version
    return store if version == 1 else store / "versions" / f"{version:06d}"


class Interrupting(ProgressReporter):
    """Ends the work as Ctrl-C does at the ``after``-th sign of progress; records the stages that began."""

    def __init__(self, after: int) -> None:
        super().__init__(self._record)
        self.after, self.stages, self.lines = after, list[tuple[str, int]](), list[str]()

    def _record(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, name: str, num_rows: int, skipped: int = 0) -> None:
        """A stage begins."""
        self.stages.append((name, skipped))
        super().begin(name, num_rows, skipped)

    def advance(self, num_rows: int) -> None:
        """Rows are done."""
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt
        super().advance(num_rows)


def killed_prepare(options: dict[str, object], after: int) -> bool:
    """Prepare in a process that kills itself at its ``after``-th step; whether it came to that before the end."""
    command = [sys.executable, "-c", _KILLED, json.dumps(options), str(after)]
    code = subprocess.run(command, check=False).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


_KILLED = """
import json, os, signal, sys
from configs.schema import DataConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.prepare import publish, workspace
from data_pipeline.prepare.write import history_writer
from data_pipeline.prepare.progress import ProgressReporter
from data_pipeline.store.manifest import load_manifest

history_writer.USERS_PER_ROW_GROUP, history_writer.ROW_GROUPS_PER_PART = 2, 3
left = int(sys.argv[2])

def killing(function):
    def counted(*arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return counted

ProgressReporter.advance = killing(ProgressReporter.advance)
workspace.Workspace.save = killing(workspace.Workspace.save)
history_writer.HistoryWriter._close_part = killing(history_writer.HistoryWriter._close_part)
publish._make_newest = killing(publish._make_newest)
workspace.remove_ours = killing(workspace.remove_ours)
prepare(DataConfig(**json.loads(sys.argv[1])))
"""
