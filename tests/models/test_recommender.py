"""Training and ranking ask the same question of the same history."""

import pytest
import torch
from torchrec import EmbeddingCollection, EmbeddingConfig

from configs.schema import SASRecConfig, UserInput
from data_pipeline.batch import SequenceBatch
from models.recommender import Recommender

HISTORIES = [[1, 2, 3, 4], [5, 6], [7, 8, 9]]


@pytest.mark.parametrize("user_input", list(UserInput))
def test_a_history_is_encoded_alike_in_training_and_in_ranking(user_input: UserInput):
    model = _recommender(user_input)
    trained = model(_batch(HISTORIES), torch.arange(3))
    ranked = model(_batch([history[:-1] for history in HISTORIES]), torch.arange(3), is_training=False)
    ends = torch.tensor([len(history) - 1 for history in HISTORIES]).cumsum(0) - 1
    torch.testing.assert_close(trained.query[ends], ranked.query)


def test_targets_are_the_history_shifted_by_one_with_the_vectors_of_the_same_table():
    model = _recommender(UserInput.NONE)
    found = model(_batch(HISTORIES), torch.tensor([9, 0]))
    assert found.target.tolist() == [2, 3, 4, 6, 8, 9]
    table = model.tables.embeddings["item"].weight
    torch.testing.assert_close(found.target_vector, table[found.target])
    torch.testing.assert_close(found.candidate_vector, table[[9, 0]])


@pytest.mark.parametrize("user_input", [UserInput.ADD, UserInput.FIRST_TOKEN])
def test_the_user_reaches_every_query_of_his_own_and_no_other(user_input: UserInput):
    model = _recommender(user_input)
    first, second = (model(_batch(HISTORIES, [user, 1, 2]), torch.arange(1)).query for user in (0, 3))
    assert not torch.isclose(first[:3], second[:3]).all(1).any()
    torch.testing.assert_close(first[3:], second[3:])


def test_a_batch_without_users_is_empty():
    found = _recommender(UserInput.FIRST_TOKEN)(_batch([]), torch.arange(4))
    assert found.query.shape == (0, 8)
    assert found.candidate_vector.shape == (4, 8)


def _recommender(user_input: UserInput) -> Recommender:
    torch.manual_seed(0)
    names = ["item"] if user_input is UserInput.NONE else ["item", "user"]
    tables = EmbeddingCollection(
        tables=[
            EmbeddingConfig(name=name, num_embeddings=10, embedding_dim=8, feature_names=[name]) for name in names
        ]
    )
    config = SASRecConfig(embedding_dim=8, feed_forward_dim=8, user_input=user_input, initial_std=0.5)
    return Recommender(config, tables, max_history=5).eval()


def _batch(histories: list[list[int]], users: list[int] | None = None) -> SequenceBatch:
    lengths = torch.tensor([len(history) for history in histories], dtype=torch.int64)
    item = torch.tensor([event for history in histories for event in history], dtype=torch.int64)
    user = torch.tensor(users if users is not None else range(len(histories)), dtype=torch.int64)
    return SequenceBatch(item, lengths, user, torch.zeros_like(item))
