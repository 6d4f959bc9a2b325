"""What the step benchmark counts as a token, and what it scores of it."""

import pytest

from benchmarks.bench_step import _lengths, _predicted_share
from configs.load import load_config
from encoder_case import batch_of


@pytest.mark.parametrize(("name", "tokens"), [("sasrec", [4, 1]), ("bert4rec", [5, 2])])
def test_the_last_event_is_a_token_only_where_the_encoder_reads_it(name: str, tokens: list[int]) -> None:
    assert (
        _lengths(load_config([f"model={name}"]), [batch_of([[1, 2, 3, 4, 5]]), batch_of([[6, 7]])]).tolist() == tokens
    )


def test_only_hidden_events_are_scored() -> None:
    batches = [batch_of([[1] * 100] * 50)]
    assert _predicted_share(load_config(["model=sasrec"]), batches) == 1
    only_last = load_config(["model=bert4rec", "model.mask_last_fraction=1"])
    assert _predicted_share(only_last, batches) == pytest.approx(0.01)
