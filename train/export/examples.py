"""``example.json``: histories of some users and what is recommended to them, for whoever tries the copy.

B users, V items, v of them on this rank, k recommended, D the width of the model.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from configs.schema import ExportDtype, RunConfig, Split
from data_pipeline.batch import EvaluationBatch, offsets_of
from data_pipeline.split import Subset
from data_pipeline.store.manifest import Manifest, item_table
from data_pipeline.store.raw_users import RawUsers
from data_pipeline.stream.sequence_stream import evaluation_batches
from models.collectives import Collectives
from models.loss.item_shard import slice_of
from train.distributed.collectives import on_rank_zero
from train.evaluation.lists import best_items
from train.evaluation.ranking import empty_batch, joined_queries, slice_vectors
from train.state import TrainState
from train.top_items import ListRule

RULE = ListRule(10)
SCRIPT = Path(__file__).with_name("example.py")
Entry = dict[str, Any]


def make_examples(exported: nn.Module, state: TrainState, config: RunConfig, manifest: Manifest) -> list[Entry]:
    """One entry a user, on rank 0: the first ``export.examples`` who have a test target, with their histories before
    it. Recommended is the run's own answer where tables are float32, else that of ``exported``. Collective."""
    found: list[EvaluationBatch | None] = []
    on_rank_zero(lambda: found.append(_first_users(config, config.export.examples)))
    batch = found[0] if found else None
    model = state.model if config.export.dtype is ExportDtype.FLOAT32 else exported
    leave_out_seen = config.evaluation.leave_out_seen
    ids, scores = recommended(model, batch, manifest.num_items, leave_out_seen, state.collectives, state.device)
    entries: list[Entry] = []

    def describe() -> None:
        if batch is not None:
            entries.extend(_described(batch, ids.cpu(), scores.cpu(), config, manifest))

    on_rank_zero(describe)
    return entries


def write_examples(folder: Path, entries: list[Entry]) -> None:
    """``example.json``, and ``example.py`` which reads it."""
    (folder / "example.json").write_text(json.dumps({"examples": entries}, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(SCRIPT, folder / SCRIPT.name)


@torch.no_grad()
def recommended(
    model: nn.Module,
    batch: EvaluationBatch | None,
    num_items: int,
    leave_out_seen: bool,
    collectives: Collectives,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Items ``[B, k]`` and scores of the best of the whole catalogue, exact, as :func:`top_items` orders them; -1 and
    -inf where a list is shorter.

    The users are those of all ranks' ``batch``; None: this rank has none. Collective; the same on every rank.
    """
    model.eval()
    items = slice_of(num_items, collectives)
    item_vector = slice_vectors(model, items, device)
    local = empty_batch(device) if batch is None else batch.to(device)
    asked = joined_queries(model, local, collectives, device)
    found = best_items(asked, item_vector, num_items, leave_out_seen, collectives, RULE)
    return found.item, found.score


def _first_users(config: RunConfig, count: int) -> EvaluationBatch | None:
    """None where there is nobody."""
    if not count or config.data.split is Split.NONE:
        return None
    features = config.model.event_features
    return next(
        evaluation_batches(config.data, Subset.TEST, batch_size=count, rank=0, world_size=1, features=features), None
    )


def _described(
    batch: EvaluationBatch, ids: Tensor, scores: Tensor, config: RunConfig, manifest: Manifest
) -> list[Entry]:
    """With raw ids; features as the codes and numbers that the program takes."""
    raw_items = item_table(config.data.store, manifest, ["raw_item"]).column("raw_item")
    users = RawUsers(config.data.store, manifest).raw_of(batch.history.user.numpy()).to_list()

    def raw(items: list[int]) -> list[Any]:
        return [raw_items[item].as_py() for item in items]

    entries = []
    ends, seen_ends = offsets_of(batch.history.lengths).tolist(), batch.seen_offsets.tolist()
    for row, raw_user in enumerate(users):
        events = slice(ends[row], ends[row + 1])
        seen = batch.seen[seen_ends[row] : seen_ends[row + 1]].tolist()
        is_candidate = torch.isfinite(scores[row])
        entries.append(
            {
                "user": raw_user,
                "history": raw(batch.history.item[events].tolist()),
                "features": {name: values[events].tolist() for name, values in batch.history.features.items()},
                "seen": raw(list(dict.fromkeys(seen))) if config.evaluation.leave_out_seen else [],
                "recommended": raw(ids[row][is_candidate].tolist()),
                "scores": scores[row][is_candidate].tolist(),
            }
        )
    return entries
