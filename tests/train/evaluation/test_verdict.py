"""A model that counting beats is said to be below; what the interval cannot tell apart is said so."""

import pytest

from train.evaluation.verdict import verdict_of

INTERVAL = [0.10, 0.12]


def quality(*baselines: float) -> dict:
    """Of a model at .11 against ``baselines``."""
    rows = {f"b{number}": {"ndcg@10": value} for number, value in enumerate(baselines)}
    return {"test": {"ndcg@10": 0.11}, "test_ci95": {"ndcg@10": INTERVAL}, "baselines": rows}


@pytest.mark.parametrize(
    ("baselines", "words", "overall"),
    [
        ([0.05, 0.09], ["above", "above"], "above"),
        ([0.05, 0.10], ["above", "not distinguishable"], "not distinguishable"),
        ([0.12], ["not distinguishable"], "not distinguishable"),
        ([0.05, 0.11, 0.13], ["above", "not distinguishable", "below"], "below"),
    ],
)
def test_the_least_favourable_baseline_decides(baselines: list[float], words: list[str], overall: str):
    found = verdict_of(quality(*baselines))
    assert list(found["baselines"].values()) == words
    assert found["overall"] == overall


def test_the_sentence_names_the_baselines_that_decide_and_the_interval():
    text = verdict_of(quality(0.05, 0.2, 0.3))["text"]
    assert "BELOW b1 (0.2000), b2 (0.3000)" in text
    assert "b0" not in text
    assert "NDCG@10 0.1100, 95 % interval 0.1000 to 0.1200" in text
    assert "not distinguishable from b0 (0.1100)" in verdict_of(quality(0.11))["text"]
    assert "above every baseline" in verdict_of(quality(0.01))["text"]
