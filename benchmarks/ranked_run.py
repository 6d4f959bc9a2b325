"""The ranks that runs have written down, of the same users in the same order.

N users that every run has ranked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.runs.protocol import differing
from benchmarks.runs.recorded_run import RecordedRun
from configs.errors import ConfigError, DataError
from train.evaluation.user_ranks import RANKS, RANKS_OF_EVALUATION, read_user_ranks

OF_RUN, OF_EVALUATION = "run", "evaluation"
"""Whose ranks: of the end of training, or of the last ``shardrec evaluate``."""
_FILES = {OF_RUN: RANKS, OF_EVALUATION: RANKS_OF_EVALUATION}
_KEYS = {
    "fingerprint": "data.fingerprint",
    "split": "data.split",
    "leave_out_seen": "evaluation.leave_out_seen",
    "cutoffs": "cut-offs",
    "num_items": "items of the catalogue",
}
"""What of a protocol must be the same, and what the user calls it."""


@dataclass(frozen=True, slots=True)
class RankedRun:
    """The rows of one subset, by raw user."""

    place: str
    protocol: dict[str, Any]
    user: pa.Array
    item: pa.Array
    rank: np.ndarray
    """float64 [N]."""


def read_ranked_run(run: RecordedRun, split: str, whose: str) -> RankedRun:
    """The ranks of ``run`` in ``split``. Raises :class:`ConfigError` where it has none, and says how to get them."""
    if run.keys.get("data.split") == "none" and whose == OF_RUN:
        raise ConfigError(
            f"{run.place} was trained with data.split=none, so that nobody was ranked; compare runs that hold out "
            f"events"
        )
    path = run.path / _FILES[whose]
    if not path.is_file():
        raise ConfigError(_without_ranks(run, split, whose))
    try:
        found = read_user_ranks(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    rows = found.of(split)
    if not len(rows):
        raise ConfigError(f"{path} has no rows of split={split}; use another split")
    rows = rows.sort_by("user").combine_chunks()
    return RankedRun(run.place, found.protocol, rows["user"].chunk(0), rows["item"].chunk(0), rows["rank"].to_numpy())


def aligned(runs: Sequence[RankedRun]) -> list[np.ndarray]:
    """The ranks [N] of each run, user by user. Raises :class:`ConfigError` where two runs were asked by other rules
    or about other targets, and names the difference."""
    first = runs[0]
    for run in runs[1:]:
        asked = {shown: (first.protocol.get(key), run.protocol.get(key)) for key, shown in _KEYS.items()}
        if found := list(differing(asked)):
            raise ConfigError(
                f"{run.place} was not ranked as {first.place} was, so that they cannot be compared: "
                f"{'; '.join(found)}"
            )
        if not (_same(first.user, run.user) and _same(first.item, run.item)):
            raise ConfigError(
                f"{run.place} ranked other targets ({len(run.rank):,} users) than {first.place} did "
                f"({len(first.rank):,}), so that they cannot be compared user by user"
            )
    return [run.rank for run in runs]


def _without_ranks(run: RecordedRun, split: str, whose: str) -> str:
    path = run.path / _FILES[whose]
    if whose == OF_EVALUATION:
        return f"{path} is not there; `shardrec evaluate run_dir={run.place}` writes it"
    if split == "test":
        return (
            f"{run.place} has no {RANKS}: another version trained it. `shardrec evaluate run_dir={run.place}` ranks "
            f"its best model; do so for each run, then compare them with ranks={OF_EVALUATION}"
        )
    return f"{run.place} has no {RANKS}: another version trained it; only runs that have one can be compared"


def _same(first: pa.Array, second: pa.Array) -> bool:
    return bool(first.type == second.type and first.equals(second))
