"""The padded form of a recommender, which is exported, against the jagged one that is trained."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from configs.schema import SASRecConfig, UserInput
from data_pipeline.batch import SequenceBatch
from models.dense_recommender import DenseRecommender
from models.recommender import Recommender
from models.tables import build_tables

WIDTH, MAX_HISTORY, NUM_ITEMS, NUM_USERS = 8, 9, 30, 20
CODES = {"category": 5, "price": 0}


def case(user_input: UserInput, num_blocks: int, codes: dict[str, int]) -> tuple[Recommender, SequenceBatch]:
    torch.manual_seed(0)
    config = SASRecConfig(
        embedding_dim=WIDTH, num_blocks=num_blocks, user_input=user_input, event_features=[*codes], initial_std=0.5
    )
    users = 0 if user_input is UserInput.NONE else NUM_USERS
    tables = build_tables(NUM_ITEMS, users, WIDTH).to_empty(device="cpu")
    for weight in tables.parameters():
        torch.nn.init.normal_(weight)
    lengths = torch.tensor([1, MAX_HISTORY, *torch.randint(1, MAX_HISTORY + 1, (NUM_USERS - 2,)).tolist()])
    num_events = int(lengths.sum())
    features = {"category": torch.randint(0, 5, (num_events,)), "price": torch.randn(num_events)}
    batch = SequenceBatch(
        torch.randint(0, NUM_ITEMS, (num_events,)),
        lengths,
        torch.randperm(NUM_USERS),
        torch.zeros(num_events, dtype=torch.int64),
        {name: features[name] for name in codes},
    )
    return Recommender(config, tables, MAX_HISTORY, codes).eval(), batch


def padded_inputs(recommender: Recommender, batch: SequenceBatch, padding: float) -> dict[str, object]:
    def padded(values: Tensor) -> Tensor:
        return pad_sequence(values.split(batch.lengths.tolist()), batch_first=True, padding_value=padding)

    items, users = recommender.table_rows(batch.item, batch.user)
    inputs: dict[str, object] = {"item_vectors": padded(items), "lengths": batch.lengths}
    inputs |= {} if users is None else {"user_vectors": users}
    return inputs | ({"features": {name: padded(each) for name, each in batch.features.items()}} if CODES else {})


@torch.no_grad()
@pytest.mark.parametrize("codes", [{}, CODES], ids=["plain", "features"])
@pytest.mark.parametrize("num_blocks", [1, 3])
@pytest.mark.parametrize("user_input", list(UserInput))
def test_padded_histories_give_the_queries_of_jagged_ones(
    user_input: UserInput, num_blocks: int, codes: dict[str, int]
) -> None:
    recommender, batch = case(user_input, num_blocks, codes)
    jagged = recommender(batch, batch.item[:0], is_training=False).query
    dense = DenseRecommender(recommender).eval()
    for padding in (0, 3):
        found = dense(**padded_inputs(recommender, batch, padding))
        torch.testing.assert_close(found, jagged, rtol=1e-5, atol=1e-5)
