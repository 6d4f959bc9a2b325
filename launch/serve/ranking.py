"""The best items of each query, exactly: equal scores are ordered by row.

B queries, V items, D the width of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

MAX_SCORES = 2**26
"""Scores that are held at once: 256 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """``k`` of them are wanted, out of the rows of ``allowed`` (None: all) without those of ``left_out``."""

    k: int
    left_out: Sequence[int] = ()
    allowed: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Best:
    """Rows of items, the best first, with their scores; fewer than were wanted where candidates are.

    ``is_finite`` is false, and there are no rows, where the query is none: features may be as far from those of the
    training as floats are.
    """

    rows: list[int]
    scores: list[float]
    is_finite: bool = True


def best_of(query: Tensor, item_vectors: Tensor, wanted: Sequence[Candidates]) -> list[Best]:
    """The best rows of ``item_vectors`` ``[V, D]`` for each query ``[B, D]``, by dot product."""
    at_once = max(1, MAX_SCORES // len(item_vectors))
    found: list[Best] = []
    for start in range(0, len(wanted), at_once):
        part = wanted[start : start + at_once]
        score = query[start : start + at_once] @ item_vectors.t()
        _mask(score, part)
        found += _top(score, part)
    is_finite = torch.isfinite(query).all(dim=1).tolist()
    return [best if finite else Best([], [], False) for best, finite in zip(found, is_finite, strict=True)]


def _mask(score: Tensor, wanted: Sequence[Candidates]) -> None:
    """Set what is no candidate to minus infinity, in place."""
    for row, each in enumerate(wanted):
        if each.allowed is not None:
            allowed = torch.tensor(each.allowed, dtype=torch.int64)
            kept = score[row, allowed]
            score[row] = float("-inf")
            score[row, allowed] = kept
    counts = [len(each.left_out) for each in wanted]
    owner = np.repeat(np.arange(len(wanted)), counts)
    left_out = np.fromiter(chain.from_iterable(each.left_out for each in wanted), np.int64, sum(counts))
    score[torch.from_numpy(owner), torch.from_numpy(left_out)] = float("-inf")


def _top(score: Tensor, wanted: Sequence[Candidates]) -> list[Best]:
    # One more than is wanted shows whether the last one has equals behind it.
    most = min(max(each.k for each in wanted) + 1, score.shape[1])
    best, item = score.topk(most, dim=1)
    found = zip(score, best.tolist(), item.tolist(), wanted, strict=True)
    return [_ordered(all_scores, scores, items, each.k) for all_scores, scores, items, each in found]


def _ordered(score: Tensor, best: list[float], items: list[int], k: int) -> Best:
    if k < len(best) and best[k - 1] == best[k] and best[k] > float("-inf"):
        # Which of the equals topk returns is its own choice.
        sorted_score, order = score.sort(descending=True, stable=True)
        best, items = sorted_score[:k].tolist(), order[:k].tolist()
    pairs = sorted(zip(best[:k], items[:k], strict=True), key=lambda pair: (-pair[0], pair[1]))
    pairs = [pair for pair in pairs if pair[0] > float("-inf")]
    return Best([item for _, item in pairs], [value for value, _ in pairs])
