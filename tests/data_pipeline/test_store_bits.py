"""A bit that turned, or an end that was cut off, anywhere in a store is found by one error or changes nothing."""

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from logs import random_log

from configs.errors import DataError
from configs.load import load_config
from configs.schema import DataConfig
from configs.schema.features import FeatureConfig
from data_pipeline.prepare.prepare import prepare
from data_pipeline.split import Subset
from data_pipeline.store.file_sums import files_below
from data_pipeline.store.manifest import item_counts, item_table, load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream, evaluation_batches
from train.evaluation.baselines import baseline_quality
from train.preflight import check

NUM_FLIPS, NUM_CUTS = 200, 50
CONFIG = load_config(["data.global_batch_tokens=80"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two versions with features, broken rows and lengths."""
    folder = tmp_path_factory.mktemp("bits")
    rows = random_log(900, num_users=60).with_columns(
        pl.when(pl.int_range(pl.len()) % 50 == 7).then(None).otherwise(pl.col("user_id")).alias("user_id")
    )
    options = {"max_bad_fraction": 0.5, "features": {"kind": FeatureConfig(column="event_type")}}
    for k, part in enumerate((rows[:500], rows[500:])):
        part.write_parquet(folder / f"{k}.parquet")
        prepare(DataConfig(log=f"{folder}/{k}.parquet", store=f"{folder}/store", append=True, **options))
    read_all(folder / "store")
    return folder / "store"


def read_all(store: Path) -> list[object]:
    """What training and evaluation read of both versions of ``store``."""
    return [_read(store, version) for version in (0, 1)]


def _read(store: Path, version: int) -> object:
    config = replace(CONFIG, run_dir=f"{store}-run", data=replace(CONFIG.data, store=str(store), version=version))
    check(config, [])
    manifest = load_manifest(str(store), version)
    stream = SequenceStream(config.data, seed=0, rank=0, world_size=1, features=["kind"])
    batches = stream.batches()
    trained = [_numbers(next(batches)) for _ in range(stream.steps_per_epoch)]
    batches.close()
    options = {"batch_size": 16, "rank": 0, "world_size": 1, "features": ["kind"]}
    ranked = [
        (_numbers(batch.history), batch.target.tolist())
        for batch in evaluation_batches(config.data, Subset.TEST, **options)
    ]
    items = item_table(str(store), manifest, None).to_pylist()
    quality = baseline_quality(config.data, Subset.TEST, config.evaluation)
    return manifest, trained, ranked, items, item_counts(str(store), manifest).tolist(), quality


def _numbers(batch: object) -> list[list[float]]:
    return [getattr(batch, name).tolist() for name in ("item", "lengths", "user", "timestamp")] + [
        batch.features["kind"].tolist()
    ]


def outcome_of(store: Path, expected: list[object]) -> str | None:
    """The error of reading ``store``; None where that gives what is ``expected``."""
    try:
        found = read_all(store)
    except DataError as error:
        return " ".join(str(error).split())  # as a command tells it
    return None if found == expected else "other data, without an error"


def damages(store: Path) -> Iterator[tuple[Path, bytes]]:
    """Files of ``store`` with their damaged content: each file alike often, each bit of it alike likely."""
    draw = np.random.default_rng(7)
    paths = list(files_below(store).values())
    for k in range(NUM_FLIPS + NUM_CUTS):
        path = paths[k % len(paths)]
        content = bytearray(path.read_bytes())
        place = int(draw.integers(len(content)))
        if k < NUM_FLIPS:
            content[place] ^= 1 << int(draw.integers(8))
        yield path, bytes(content if k < NUM_FLIPS else content[:place])


@pytest.mark.slow
def test_bits_that_turned_and_ends_that_were_cut_off_are_found_or_change_nothing(store: Path, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, num_found = read_all(store), 0
        for path, damaged in damages(store):
            copy = tmp_path / "store"
            shutil.copytree(store, copy)
            target = copy / path.relative_to(store)
            target.write_bytes(damaged)
            message = outcome_of(copy, expected)
            assert message is None or str(target) in message, message
            num_found += message is not None
            shutil.rmtree(copy)
    assert num_found > (NUM_FLIPS + NUM_CUTS) // 3
