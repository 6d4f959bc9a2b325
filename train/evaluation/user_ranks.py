"""``RUN/ranks.parquet``: one row a ranked target, with raw ids, so that runs can be compared user by user.

N targets of one subset, in the order of the dense ids of their users.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from configs.atomic_files import atomic_file
from configs.errors import DataError
from configs.schema import RunConfig, Split
from data_pipeline.split import SplitRule, split_rule
from data_pipeline.store.id_map import raw_items
from data_pipeline.store.manifest import Manifest
from data_pipeline.store.paths import AnyPath
from data_pipeline.store.raw_users import RawUsers
from train.evaluation.metrics import CUTOFFS

RANKS = "ranks.parquet"
"""Of a training run: the best validation and the test."""
RANKS_OF_EVALUATION = "evaluation_ranks.parquet"
"""Of ``shardrec evaluate``: the targets that it ranked last."""
PROTOCOL = b"shardrec"
"""The key of the file's metadata that holds the protocol, as JSON."""
FORMAT = 1
ROW_GROUP = 2**16
"""Rows that are written and held at once."""


@dataclass(frozen=True, slots=True)
class RankedTargets:
    """Where each target of a subset stands, by dense ids."""

    user: np.ndarray
    """int64 [N], ascending."""
    item: np.ndarray
    """int64 [N]."""
    rank: np.ndarray
    """float64 [N]: 1 is the best, ties count half, infinity for a target that was seen and is no candidate."""
    score: np.ndarray
    """float32 [N]."""
    is_seen: np.ndarray
    """bool [N]: whether the target is an item of the history before it."""
    history_length: np.ndarray
    """int32 [N]: events before the target."""

    def __len__(self) -> int:
        return len(self.rank)


@dataclass(frozen=True, slots=True)
class RankFile:
    """What a ``ranks.parquet`` holds: who ranked what by which protocol, and the rows of each subset."""

    protocol: dict[str, Any]
    table: pa.Table

    def of(self, subset: str) -> pa.Table:
        """The rows of ``"valid"`` or ``"test"``, in the order of the file."""
        return self.table.filter(pc.equal(self.table.column("split"), subset)).combine_chunks()


def protocol_of(config: RunConfig, manifest: Manifest, step: int) -> dict[str, Any]:
    """By which rules a model of ``step`` was ranked: what must be the same where two models are compared, and what
    says which model it was."""
    return {
        "fingerprint": manifest.fingerprint,
        "split": _split_of(config, split_rule(config.data, manifest)),
        "leave_out_seen": config.evaluation.leave_out_seen,
        "cutoffs": list(CUTOFFS),
        "num_items": manifest.num_items,
        "step": step,
    }


def _split_of(config: RunConfig, rule: SplitRule) -> dict[str, Any]:
    """The split, and where its targets begin: fractions and dates that give the same targets are the same."""
    name = {"name": rule.split.value}
    if rule.split is Split.GLOBAL_TIME:
        return name | {"valid_start_ms": int(rule.valid_start_ms), "test_start_ms": int(rule.test_start_ms)}
    if rule.split is Split.COLD_ITEMS:
        return name | {"fraction": config.data.cold_items_fraction, "seed": config.data.cold_items_seed}
    return name


def write_user_ranks(
    path: Path,
    ranked: Mapping[str, RankedTargets],
    store: str,
    manifest: Manifest,
    protocol: Mapping[str, Any],
) -> None:
    """Write the targets of each subset, in their order, with the raw ids of ``store``; whole or not at all.

    Holds the raw ids of the items and a few thousand rows. Raises :class:`OSError`, and :class:`DataError` where the
    store cannot be read.
    """
    items, users = raw_items(store, manifest), RawUsers(store, manifest)
    of_user = pa.int64() if users.dtype.is_integer() else pa.string()
    schema = pa.schema(
        [
            ("split", pa.string()),
            ("user", of_user),
            ("item", items.type),
            ("rank", pa.float64()),
            ("score", pa.float32()),
            ("is_seen", pa.bool_()),
            ("history_length", pa.int32()),
        ],
        metadata={PROTOCOL: json.dumps({"format": FORMAT, **protocol}, sort_keys=True)},
    )
    with atomic_file(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for subset, targets in ranked.items():
            for rows in _row_groups(len(targets)):
                writer.write_table(_table(subset, targets, rows, items, users, schema))


def read_user_ranks(path: AnyPath) -> RankFile:
    """What :func:`write_user_ranks` wrote; :class:`DataError` for another file, :class:`OSError` as reading does."""
    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        protocol = json.loads((table.schema.metadata or {})[PROTOCOL])
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged, or not a file of ranks that a run wrote ({error})") from error
    if protocol.get("format") != FORMAT:
        raise DataError(f"{path} is of format {protocol.get('format')}; this version reads {FORMAT}: evaluate again")
    return RankFile(protocol, table)


def _row_groups(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, ROW_GROUP):
        yield slice(start, start + ROW_GROUP)


def _table(
    subset: str, targets: RankedTargets, rows: slice, items: pa.Array, users: RawUsers, schema: pa.Schema
) -> pa.Table:
    rank = targets.rank[rows]
    columns = [
        pa.array([subset] * len(rank), pa.string()),
        users.raw_of(targets.user[rows]).to_arrow().cast(schema.field("user").type),
        items.take(pa.array(targets.item[rows])),
        pa.array(rank),
        pa.array(targets.score[rows], pa.float32()),
        pa.array(targets.is_seen[rows]),
        pa.array(targets.history_length[rows], pa.int32()),
    ]
    return pa.Table.from_arrays(columns, schema=schema)
