"""Features of events reach the model on any number of ranks, and never those of the event to be predicted."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torchrec import EmbeddingCollection, EmbeddingConfig

from configs.errors import ConfigError
from configs.schema import DataConfig, SASRecConfig, UserInput
from configs.schema.features import FeatureConfig, FeatureType, Normalise
from data_pipeline.batch import SequenceBatch
from data_pipeline.prepare.prepare import prepare
from models.recommender import Recommender
from ranks import run_ranks
from runs import assert_resumed, assert_same_ranks, losses_and_ranks, run_cut_and_resume, run_here

MODEL = ["model.embedding_dim=16", "model.feed_forward_dim=16", "data.max_history=12", "data.global_batch_size=32"]
FEATURES = ["model.event_features=[kind,price]"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store in which the kind of an event says from which half of the catalogue the next item comes."""
    folder = tmp_path_factory.mktemp("features")
    draw = np.random.default_rng(0)
    num = 4000
    users = np.sort(draw.integers(0, 250, num))
    halves = draw.integers(0, 2, num)
    rows = pl.DataFrame(
        {
            "user_id": users,
            "item_id": draw.integers(0, 20, num) + 20 * halves,
            "timestamp": np.arange(num),
            "kind": np.where(np.roll(halves, -1) == 0, "view", "buy"),
            "price": pl.Series(np.where(draw.random(num) < 0.1, np.nan, draw.lognormal(size=num))),
        }
    )
    rows.write_parquet(folder / "log.parquet")
    features = {
        "kind": FeatureConfig(),
        "price": FeatureConfig(type=FeatureType.NUMBER, normalise=Normalise.STANDARD),
    }
    prepare(DataConfig(log=str(folder / "log.parquet"), store=str(folder / "store"), features=features))
    return str(folder / "store")


def test_the_number_of_ranks_does_not_change_the_losses_with_features(store: str) -> None:
    rates = ["optimizer.lr=0.01", "optimizer.warmup_steps=0", "model.dropout=0", "model.attention_dropout=0"]
    overrides = [f"data.store={store}", *MODEL, *rates]
    one, two = (run_ranks(size, losses_and_ranks, [*overrides, *FEATURES]) for size in (1, 2))
    np.testing.assert_allclose(two[0][0], one[0][0], rtol=1e-5)
    assert two[0] == two[1]
    assert_same_ranks(two[0][1], one[0][1])
    without = run_ranks(1, losses_and_ranks, overrides)[0]
    assert without[0][-1] - one[0][0][-1] > 0.1, "the kind of an event halves what may come next"


def test_a_resumed_run_with_features_repeats_the_losses_bit_for_bit(store: str, tmp_path: Path) -> None:
    overrides = [f"data.store={store}", *MODEL, *FEATURES, "num_steps=8", "log_every_steps=1"]
    overrides += [
        "checkpoint.every_steps=3",
        "checkpoint.keep_last=9",
        "hardware.num_ranks=2",
        "model.user_input=add",
    ]
    run_ranks(2, run_cut_and_resume, overrides, str(tmp_path / "run"), 3)
    first, resumed = assert_resumed(tmp_path / "run", 3, 8)
    assert resumed == first


def test_a_feature_that_the_store_lacks_is_one_error_that_names_both(store: str, tmp_path: Path) -> None:
    overrides = [f"data.store={store}", *MODEL, "model.event_features=[colour]", f"run_dir={tmp_path}/run"]
    with pytest.raises(
        ConfigError, match=rf"data\.store={store} has no feature 'colour', it has \['kind', 'price'\]"
    ):
        run_here([*overrides, "hardware.num_ranks=1"])


HISTORIES = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]
FIRST_PREDICTION = [0, 3, 4]
"""Of each history, among the predictions of the batch."""


@pytest.mark.parametrize("user_input", list(UserInput))
@pytest.mark.parametrize("name", ["kind", "price"])
def test_an_event_is_predicted_without_its_own_features_and_those_after_it(user_input: UserInput, name: str) -> None:
    model, batch = _recommender(user_input), _batch(HISTORIES)
    before = model(batch, torch.arange(3))
    place = 0
    for history, first in zip(HISTORIES, FIRST_PREDICTION, strict=True):
        for position in range(len(history)):
            changed = _batch(HISTORIES)
            changed.features[name][place] += 1
            after = model(changed, torch.arange(3))
            is_changed = ~torch.isclose(before.query, after.query).all(1)
            of_history = torch.arange(first + position, first + len(history) - 1)
            expected = torch.zeros(len(before.query), dtype=torch.bool).index_fill(0, of_history, value=True)
            assert torch.equal(is_changed, expected)
            torch.testing.assert_close(after.target_vector, before.target_vector)
            place += 1


@pytest.mark.parametrize("user_input", list(UserInput))
def test_a_history_with_features_is_encoded_alike_in_training_and_in_ranking(user_input: UserInput) -> None:
    model, batch = _recommender(user_input), _batch(HISTORIES)
    trained = model(batch, torch.arange(3))
    is_input = torch.tensor([True, True, True, False, True, False, True, True, False])
    shorter = _batch([history[:-1] for history in HISTORIES])
    shorter.features = {name: values[is_input] for name, values in batch.features.items()}
    ranked = model(shorter, torch.arange(3), is_training=False)
    ends = torch.tensor([len(history) - 1 for history in HISTORIES]).cumsum(0) - 1
    torch.testing.assert_close(trained.query[ends], ranked.query)


def _recommender(user_input: UserInput) -> Recommender:
    torch.manual_seed(0)
    names = ["item"] if user_input is UserInput.NONE else ["item", "user"]
    tables = EmbeddingCollection(
        tables=[
            EmbeddingConfig(name=name, num_embeddings=10, embedding_dim=8, feature_names=[name]) for name in names
        ]
    )
    config = SASRecConfig(embedding_dim=8, feed_forward_dim=8, user_input=user_input, initial_std=0.5)
    return Recommender(config, tables, 5, {"kind": 12, "price": 0}).eval()


def _batch(histories: list[list[int]]) -> SequenceBatch:
    lengths = torch.tensor([len(history) for history in histories], dtype=torch.int64)
    item = torch.tensor([event for history in histories for event in history], dtype=torch.int64)
    features = {"kind": item.clone(), "price": torch.linspace(-1, 1, len(item))}
    return SequenceBatch(item, lengths, torch.arange(len(histories)), torch.zeros_like(item), features)
