"""Models that know a user by the user table alone: the formulas, and what they cannot do."""

import pytest
import torch

from configs.errors import ConfigError
from configs.schema import BCEConfig, UserInput
from configs.schema.model import DotConfig, Masking, SigmoidLinearConfig
from data_pipeline.batch import SequenceBatch
from encoder_case import MAX_HISTORY, NUM_ITEMS, batch_of, small_recommender
from models.dense_recommender import DenseRecommender
from models.encoders.classical import Dot, SigmoidLinear
from models.loss.loss_inputs import LossInputs
from models.loss.sampled import sampled_loss
from models.masking import hidden_events
from models.recommender import Recommender
from train.export.program import encoder_program, load_program, program_bytes

MODELS = ["dot", "sigmoid_linear"]
HISTORIES = [[1, 2, 3], [4], [5, 6], [7, 1]]
ITEMS = torch.arange(NUM_ITEMS)


def trained_on(histories: list[list[int]]) -> SequenceBatch:
    """As a step has it: every event is to be found."""
    batch = batch_of(histories)
    batch.is_hidden = hidden_events(batch, Masking(1.0, 0.0), seed=0, step=0)
    return batch


def tables_of(recommender: Recommender) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of the users and of the items."""
    embeddings = recommender.tables.embeddings
    return embeddings["user"].weight, embeddings["item"].weight


def scores_of(recommender: Recommender, found: LossInputs, rows: slice = slice(None)) -> torch.Tensor:
    """Of every item, ``[N, V]``."""
    assert found.offset is not None
    return found.query[rows] @ found.candidate_vector.t() + found.offset[rows, None]


def formula(recommender: Recommender) -> torch.Tensor:
    """Scores ``[U, V]`` as a book has them."""
    user, item = tables_of(recommender)
    encoder = recommender.encoder
    if isinstance(encoder, Dot):
        return user @ item.t() + encoder.bias
    assert isinstance(encoder, SigmoidLinear)
    return encoder.user(user) + (item @ encoder.item[0])[None]


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_every_event_of_a_history_is_scored_by_the_formula(name: str) -> None:
    recommender = small_recommender(name, num_users=9)
    batch = trained_on(HISTORIES)
    found = recommender(batch, ITEMS)
    owner = torch.tensor([0, 0, 0, 2, 2, 3, 3])  # a history of one event has none before it to be shown
    assert found.target.tolist() == [1, 2, 3, 5, 6, 7, 1]
    torch.testing.assert_close(scores_of(recommender, found), formula(recommender)[owner])


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_no_event_reaches_a_query_and_ranking_asks_the_formula(name: str) -> None:
    recommender = small_recommender(name, num_users=9)
    asked = [recommender(batch_of(each), ITEMS, is_training=False).query for each in (HISTORIES, [[9, 9]] * 4)]
    assert torch.equal(asked[0], asked[1])
    order = (asked[0] @ tables_of(recommender)[1].t()).argsort(1)
    assert torch.equal(order, formula(recommender)[:4].argsort(1))


@torch.no_grad()
def test_sigmoid_linear_has_one_order_of_items_for_every_user_and_dot_has_not() -> None:
    orders = {}
    for name in MODELS:
        recommender = small_recommender(name, num_users=9)
        probability = torch.sigmoid(formula(recommender).double())
        asked = recommender(batch_of([[1]] * 9), ITEMS, is_training=False)
        orders[name] = (asked.query @ asked.candidate_vector.t()).argsort(1)
        assert torch.equal(probability.argsort(1), formula(recommender).argsort(1)), "the sigmoid moves nobody"
    assert (orders["sigmoid_linear"] == orders["sigmoid_linear"][0]).all()
    assert not (orders["dot"] == orders["dot"][0]).all()


@torch.no_grad()
def test_a_user_of_whom_nothing_is_known_has_no_preference() -> None:
    recommender = small_recommender("dot", num_users=9)
    batch = batch_of([[1, 2], [3]])
    batch.user = torch.tensor([-1, 2])
    query = recommender(batch, ITEMS, is_training=False).query
    assert not query[0].any()
    assert query[1].all()


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_binary_cross_entropy_knows_the_whole_score(name: str) -> None:
    recommender = small_recommender(name, num_users=9)
    found, negatives = recommender(trained_on(HISTORIES), torch.tensor([8, 9])), torch.tensor([8, 9])
    total = sampled_loss(found, negatives, torch.zeros(NUM_ITEMS), BCEConfig(num_negatives=2), NUM_ITEMS)
    scores = scores_of(recommender, LossInputs(*found[:3], tables_of(recommender)[1], found.offset)).double()
    positive = -torch.nn.functional.logsigmoid(scores.gather(1, found.target[:, None])).sum()
    negative = -torch.nn.functional.logsigmoid(-scores[:, 8:10]).sum()
    torch.testing.assert_close(total.double(), positive + negative)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_the_exported_program_answers_as_the_model_does(name: str) -> None:
    recommender = small_recommender(name, num_users=9)
    program = load_program(program_bytes(encoder_program(recommender, MAX_HISTORY)))
    dense = DenseRecommender(recommender).eval()
    for num, longest in ((1, 1), (3, 5)):
        given = {
            "item_vectors": torch.randn(num, longest, 8),
            "lengths": torch.randint(1, longest + 1, (num,)),
            "user_vectors": torch.randn(num, 8),
        }
        torch.testing.assert_close(program(**given), dense(**given))


@pytest.mark.parametrize("config", [DotConfig, SigmoidLinearConfig])
def test_what_such_a_model_cannot_read_is_refused_by_key(config: type[DotConfig | SigmoidLinearConfig]) -> None:
    for user_input in (UserInput.NONE, UserInput.ADD):
        with pytest.raises(ConfigError, match=rf"model.user_input={user_input.value}: model=\w+ knows users"):
            config(user_input=user_input)
    with pytest.raises(ConfigError, match=r"model.event_features=.*reads no events"):
        config(event_features=["kind"])
