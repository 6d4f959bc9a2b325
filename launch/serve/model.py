"""An export in memory, on a CPU: histories of rows in, the best rows out.

B histories, L the longest of them, V items, D the width of the model.
"""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from configs.errors import DataError
from launch.serve.export_folder import EXAMPLES, ITEM_COUNTS, ExportFiles, read_export
from launch.serve.features import Codes
from launch.serve.id_map import IdMap, id_map_of
from launch.serve.ranking import Best, Candidates, best_of

TOLERANCE = 1e-3
"""By how much of its size a score may differ from the run's: another processor adds in another order."""


@dataclass(frozen=True, slots=True)
class Query:
    """``history`` has one row at least, the oldest first; ``user`` is a row where the model has a user table."""

    history: Sequence[int]
    candidates: Candidates
    user: int | None = None
    codes: Sequence[Codes] = ()
    """Of each event of the history, where the model has features."""


class Model:
    """Never changes once it is made, so that requests under way keep the one that they began with."""

    def __init__(self, files: ExportFiles) -> None:
        """Raises :class:`DataError` for files that are not what an export writes."""
        self.version = files.version
        self.max_history: int = files.card["preprocessing"]["max_history"]
        self.leave_out_seen: bool = files.card["preprocessing"]["leave_out_seen"]
        self.features = files.features
        self.items, self._item_vectors = _table(files, "item")
        self.users: IdMap | None = None
        self._user_vectors: Tensor | None = None
        if "user" in files.card["tables"]:
            self.users, self._user_vectors = _table(files, "user")
        self._by_count = _by_count(files, len(self.items))
        self._program = _program(files)

    @torch.no_grad()
    def recommend(self, queries: Sequence[Query]) -> list[Best]:
        """The best of each query; exact over all items."""
        histories = [query.history[-self.max_history :] for query in queries]
        lengths = [len(history) for history in histories]
        rows = np.zeros((len(queries), max(lengths)), dtype=np.int64)
        for place, history in enumerate(histories):
            rows[place, : len(history)] = history
        inputs: dict[str, Any] = {
            "item_vectors": self._item_vectors[torch.from_numpy(rows)],
            "lengths": torch.tensor(lengths),
        }
        if self._user_vectors is not None:
            inputs["user_vectors"] = self._user_vectors[torch.tensor([query.user for query in queries])]
        if len(self.features):
            inputs["features"] = self._features_of(queries, rows.shape)
        query: Tensor = self._program(**inputs)
        return best_of(query, self._item_vectors, [each.candidates for each in queries])

    def _features_of(self, queries: Sequence[Query], shape: tuple[int, ...]) -> dict[str, Tensor]:
        """``[B, L]`` of each feature, 0 behind the ends of histories."""
        found = {feature.name: np.zeros(shape, dtype=feature.dtype) for feature in self.features}
        for place, query in enumerate(queries):
            columns = self.features.columns_of(query.codes[-self.max_history :])
            for values, column in zip(found.values(), columns, strict=True):
                values[place, : len(column)] = column
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def popular(self, wanted: Candidates) -> Best:
        """The candidates with most events in the store that the model was trained on, with those numbers."""
        left_out = set(wanted.left_out)
        order: Sequence[int] | np.ndarray = self._by_count[0]
        if wanted.allowed is not None:
            rank = self._by_count[2]
            order = sorted(set(wanted.allowed), key=lambda row: int(rank[row]))
        rows = [int(row) for row in islice((row for row in order if int(row) not in left_out), wanted.k)]
        return Best(rows, [float(self._by_count[1][row]) for row in rows])


def use_threads(threads: int) -> None:
    """Threads of every model of this process. 0: one for each processor but one: where the requests compete with the
    model for the last one, all of its threads wait for the slowest (``bench serve``: a sixth of the speed)."""
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) - 1))


def load_model(folder: Path) -> Model:
    """The export in ``folder``, checked: its sums, its signature, and its answers to its own examples.

    Raises :class:`DataError`.
    """
    files = read_export(folder)
    model = Model(files)
    _check_examples(model, files)
    return model


def _table(files: ExportFiles, name: str) -> tuple[IdMap, Tensor]:
    """Ids and float32 rows ``[rows, D]``."""
    table = files.card["tables"][name]
    ids = id_map_of(files.contents[table["ids"]], files.shown(table["ids"]))
    shown = files.shown(table["file"])
    try:
        found = load(files.contents[table["file"]])
        rows = found[table["tensor"]].float()
        if "scale" in found:
            rows = rows * found["scale"][:, None]
    except (safetensors.SafetensorError, KeyError, RuntimeError, ValueError, IndexError) as error:
        raise DataError(f"{shown} is no table of {name}s ({error}); export the run again") from error
    width = files.card["program"]["output"]["shape"][1]
    if rows.shape != (len(ids), width):
        raise DataError(
            f"{shown} has the shape {list(rows.shape)}, but {table['ids']} and the program say {[len(ids), width]}; "
            f"export the run again"
        )
    return ids, rows


def _program(files: ExportFiles) -> Any:
    name = files.card["program"]["file"]
    try:
        return torch.export.load(io.BytesIO(files.contents[name])).module()
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{files.shown(name)} cannot be loaded by torch {torch.__version__} ({reason}); export the run again"
        ) from error


def _by_count(files: ExportFiles, num_items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by descending count, the count of each row, and the place of each row in that order; each ``[V]``."""
    try:
        column = pq.read_table(io.BytesIO(files.contents[ITEM_COUNTS]), columns=["count"]).column("count")
        counts = column.to_numpy().astype(np.int64)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{files.shown(ITEM_COUNTS)} cannot be read ({error}); export the run again") from error
    if len(counts) != num_items:
        raise DataError(f"{files.shown(ITEM_COUNTS)} has {len(counts)} rows for {num_items} items; export again")
    order = np.argsort(-counts, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(num_items)
    return order, counts, place


def _check_examples(model: Model, files: ExportFiles) -> None:
    """Raise :class:`DataError` where the answers are not those of the run; without examples, warm the program up."""
    try:
        examples = json.loads(files.contents[EXAMPLES])["examples"]
        queries = [_example_query(model, each) for each in examples]
        expected = [(each["recommended"], each["scores"]) for each in examples]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{files.shown(EXAMPLES)} is damaged ({error}); export the run again") from error
    no_features = [model.features.codes_of({})]
    warm_up = Query([0], Candidates(1), 0 if model.users is not None else None, no_features)
    try:
        found = model.recommend(queries or [warm_up])
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{files.folder}: the program does not take what model.json says ({reason}); export the run again"
        ) from error
    for best, (recommended, scores) in zip(found, expected, strict=False):
        if not _is_same(best, model.items.rows_of(recommended), scores):
            raise DataError(
                f"{files.shown(EXAMPLES)}: the answers differ from those of the exported run; export it again"
            )


def _example_query(model: Model, example: dict[str, Any]) -> Query:
    user = None if model.users is None else model.users.row_of[example["user"]]
    seen = model.items.rows_of(example["seen"])
    wanted = Candidates(len(example["recommended"]) or 1, seen)
    codes = list(zip(*(example["features"][feature.name] for feature in model.features), strict=True))
    return Query(model.items.rows_of(example["history"]), wanted, user, codes)


def _is_same(best: Best, rows: list[int], scores: list[float]) -> bool:
    """Equal scores may change places, so the scores decide."""
    if len(best.rows) < len(rows):
        return False
    scale = max(1.0, *map(abs, scores)) if scores else 1.0
    return all(abs(ours - theirs) <= TOLERANCE * scale for ours, theirs in zip(best.scores, scores, strict=False))
