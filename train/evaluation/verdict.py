"""Whether a model is better than counting: its NDCG@10 against that of each baseline, in words."""

from collections.abc import Mapping
from typing import Any

METRIC = "ndcg@10"
ABOVE, BELOW, UNCLEAR = "above", "below", "not distinguishable"


def verdict_of(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``quality`` with ``test``, ``test_ci95`` and ``baselines``: where the model stands.

    ``baselines``: the word for each; a baseline inside of the model's 95 % interval is not distinguishable from it.
    ``overall``: the least favourable of them; ``text``: one sentence for a person.
    """
    low, high = quality["test_ci95"][METRIC]
    values = {name: float(row[METRIC]) for name, row in quality["baselines"].items()}
    words = {name: ABOVE if value < low else BELOW if value > high else UNCLEAR for name, value in values.items()}
    overall = next(word for word in (BELOW, UNCLEAR, ABOVE) if word in words.values())
    return {"overall": overall, "baselines": words, "text": _text(overall, words, values, quality)}


def _text(overall: str, words: dict[str, str], values: dict[str, float], quality: Mapping[str, Any]) -> str:
    low, high = quality["test_ci95"][METRIC]
    own = f"NDCG@10 {quality['test'][METRIC]:.4f}, 95 % interval {low:.4f} to {high:.4f}"
    named = ", ".join(f"{name} ({values[name]:.4f})" for name, word in words.items() if word == overall)
    if overall == ABOVE:
        return f"the model is above every baseline: {own}, against {named}"
    if overall == UNCLEAR:
        return f"the model is not distinguishable from {named}: {own}; it has not shown more than counting gives"
    return (
        f"the model is BELOW {named}: {own}; counting gives more than it has learnt: train it longer, or try another "
        f"optimizer.lr, model.dropout or loss"
    )
