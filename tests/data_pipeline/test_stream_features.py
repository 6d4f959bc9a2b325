"""Features come with their events into every batch, however the store is cut and the ranks are many."""

from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from configs.errors import ConfigError, DataError
from configs.schema import DataConfig, LongHistories
from configs.schema.features import FeatureConfig, FeatureType
from data_pipeline.batch import SequenceBatch
from data_pipeline.prepare.prepare import prepare
from data_pipeline.split import Subset
from data_pipeline.store.history_reader import HistoryReader
from data_pipeline.store.manifest import load_manifest
from data_pipeline.stream.sequence_stream import SequenceStream, evaluation_batches

NUM_USERS = 1500


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    """Events with their own number, ``serial``, and a kind; few times, so that many are equal."""
    draw = np.random.default_rng(0)
    num = 12_000
    return pl.DataFrame(
        {
            "user_id": draw.integers(0, NUM_USERS, num),
            "item_id": draw.integers(0, 50, num),
            "timestamp": draw.integers(0, 20, num),
            "serial": np.arange(num),
            "kind": draw.choice(["view", "cart", "buy"], num, p=[0.6, 0.3, 0.1]),
        }
    )


@pytest.fixture(scope="module")
def store(rows: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("features")
    rows.write_parquet(folder / "log.parquet")
    features = {"serial": FeatureConfig(type=FeatureType.NUMBER), "kind": FeatureConfig()}
    store = str(folder / "store")
    prepare(DataConfig(log=str(folder / "log.parquet"), store=store, features=features))
    return store


def events_in(batch: SequenceBatch) -> list[tuple[int, int, int, int, int]]:
    """(user, item, time, serial, kind) of every event; ids are dense."""
    columns = (batch.item, batch.timestamp, batch.features["serial"].long(), batch.features["kind"])
    user = torch.repeat_interleave(batch.user, batch.lengths)
    return list(zip(*(column.tolist() for column in (user, *columns)), strict=True))


def events_by_serial(store: str, rows: pl.DataFrame) -> dict[int, tuple[int, int, int, int, int]]:
    """The same of the log, by ``serial``."""
    items = pl.read_parquet(Path(store) / "items.parquet")
    dense = dict(zip(items["raw_item"], items["item"], strict=True))
    users = {raw: place for place, raw in enumerate(sorted(rows["user_id"].unique()))}
    codes = {"view": 2, "cart": 3, "buy": 4}
    names = ("user_id", "item_id", "timestamp", "serial", "kind")
    return {
        serial: (users[user], dense[item], time, serial, codes[kind])
        for user, item, time, serial, kind in rows.select(names).iter_rows()
    }


@pytest.mark.parametrize("long_histories", list(LongHistories))
@pytest.mark.parametrize("prefetch_mib", [0, 128])
def test_every_event_of_a_training_batch_has_its_own_features(
    store: str, rows: pl.DataFrame, long_histories: LongHistories, prefetch_mib: int
) -> None:
    expected = events_by_serial(store, rows)
    config = DataConfig(store=store, max_history=4, long_histories=long_histories, prefetch_mib=prefetch_mib)
    found = 0
    for world_size in (1, 3):
        for rank in range(world_size):
            stream = SequenceStream(config, seed=0, rank=rank, world_size=world_size)
            for batch in islice(stream.batches(), stream.steps_per_epoch):
                assert batch.features["kind"].dtype == torch.int64
                assert batch.features["serial"].dtype == torch.float32
                for event in events_in(batch):
                    assert event == expected[event[3]]
                    found += 1
    assert found > 10_000


@pytest.mark.parametrize("subset", list(Subset))
def test_an_evaluation_batch_has_the_features_of_the_events_before_the_target(
    store: str, rows: pl.DataFrame, subset: Subset
) -> None:
    expected = events_by_serial(store, rows)
    by_user: dict[int, list[int]] = {}
    for user, *_, serial, _ in sorted(expected.values(), key=lambda event: (event[0], event[2], event[3])):
        by_user.setdefault(user, []).append(serial)
    num_hidden = {Subset.VALID: 2, Subset.TEST: 1}[subset]
    config = DataConfig(store=store, max_history=4)
    num_users = 0
    for batch in evaluation_batches(config, subset, batch_size=100, rank=0, world_size=1):
        serials = torch.split(batch.history.features["serial"].long(), batch.history.lengths.tolist())
        for user, found in zip(batch.history.user.tolist(), serials, strict=True):
            assert found.tolist() == by_user[user][:-num_hidden][-4:]
            num_users += 1
        assert all(event == expected[event[3]] for event in events_in(batch.history))
    assert num_users > NUM_USERS / 2


def test_a_batch_takes_its_features_along(store: str) -> None:
    stream = SequenceStream(DataConfig(store=store), seed=0, rank=0, world_size=1)
    batch = next(stream.batches())
    moved = batch.to("meta")
    assert {name: (tensor.device.type, tensor.shape) for name, tensor in moved.features.items()} == dict.fromkeys(
        ("serial", "kind"), ("meta", (batch.num_tokens,))
    )


def test_only_the_features_that_are_asked_for_are_read_and_an_unknown_one_is_refused(store: str) -> None:
    config = DataConfig(store=store)
    batches = {}
    for names in ((), ("kind",), None):
        stream = SequenceStream(config, seed=0, rank=0, world_size=1, features=names)
        batches[names] = next(stream.batches()), stream.num_bytes_read
    assert [list(batch.features) for batch, _ in batches.values()] == [[], ["kind"], ["serial", "kind"]]
    num_bytes = [count for _, count in batches.values()]
    assert num_bytes[0] < num_bytes[1] < num_bytes[2]
    with pytest.raises(ConfigError, match=r"model\.event_features.*no feature 'colour'.*\['kind', 'serial'\]"):
        SequenceStream(config, seed=0, rank=0, world_size=1, features=["colour"])


def test_a_code_beyond_the_vocabulary_is_one_clear_error(store: str) -> None:
    manifest = load_manifest(store)
    manifest.features["kind"].vocabulary.pop()
    with pytest.raises(DataError, match=r"row group 0: codes of kind from 2 to 4 must lie in \[0, 4\)"):
        HistoryReader(store, manifest, ["kind"]).read(0, 1)
