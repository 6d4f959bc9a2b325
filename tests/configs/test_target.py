"""A target is a figure of the validation and a value that it can have; what is none is refused by its key."""

import pytest

from configs.errors import ConfigError
from configs.load import load_config
from configs.schema.target import Target, parse_target


@pytest.mark.parametrize(
    ("text", "metric", "value"),
    [
        ("ndcg@10:.17", "ndcg@10", 0.17),
        ("HR@7: 0.3", "hr@7", 0.3),
        ("loss:4.5", "loss", 4.5),
        ("mrr:1e-2", "mrr", 0.01),
    ],
)
def test_a_target_is_read_as_it_is_typed(text: str, metric: str, value: float):
    assert load_config([f"train.target={text}"]).train.target_quality == Target(metric, value)


def test_less_loss_is_better():
    assert parse_target("loss:4").is_reached(3.9)
    assert not parse_target("loss:4").is_reached(4.1)
    assert parse_target("hr@10:.3").is_reached(0.3)
    assert not parse_target("hr@10:.3").is_reached(0.29)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0.17", "is not METRIC:VALUE"),
        ("ndcg@10", "is not METRIC:VALUE"),
        ("ndcg@10:", "is not METRIC:VALUE"),
        ("ndcg@10:high", "is not METRIC:VALUE"),
        ("ndcg@10:.1:.2", "is not METRIC:VALUE"),
        ("ndcg@10:17", "is a share of 1"),
        ("ndcg@10:0", "is a share of 1"),
        ("ndcg@10:-1", "is no value that can be reached"),
        ("loss:nan", "is no value that can be reached"),
        ("loss:inf", "is no value that can be reached"),
        ("ndcg:.1", "is unknown"),
        ("auc:.7", "is unknown"),
        ("rmse:1", "loss=mse"),
        (":", "is not METRIC:VALUE"),
    ],
)
def test_what_is_no_target_is_refused_by_its_key(text: str, told: str):
    with pytest.raises(ConfigError, match=told) as error:
        load_config([f"train.target={text}"])
    assert str(error.value).startswith(f"train.target={text}")


def test_without_held_out_events_there_is_nothing_to_reach():
    with pytest.raises(ConfigError, match=r"train\.target=hr@10:0\.1 is looked for in validation"):
        load_config(["train.target=hr@10:0.1", "data.split=none"])
