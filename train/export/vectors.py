"""The tables of a run on its ranks, gathered by blocks of rows and written by rank 0."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from configs.schema import ExportDtype, UserInput
from data_pipeline.store.manifest import Manifest
from models.recommender import Recommender
from train.distributed.collectives import on_rank_zero
from train.export.table_file import TableFile
from train.state import TrainState

ROWS_PER_BLOCK = 65_536
"""Rows of a table that rank 0 holds at once."""


@torch.no_grad()
def write_tables(
    folder: Path | None,
    state: TrainState,
    manifest: Manifest,
    dtype: ExportDtype,
    heartbeat: Callable[[], None],
    rows_per_block: int = ROWS_PER_BLOCK,
) -> None:
    """``item_vectors.safetensors``, where there is a user table ``user_vectors.safetensors``, and where the model has
    features their vectors. ``folder`` is rank 0's. Collective; raises :class:`ConfigError` on every rank."""
    recommender = recommender_of(state)
    sizes = {"item": manifest.num_items}
    if recommender.user_input is not UserInput.NONE:
        sizes["user"] = manifest.num_users
    for table, num_rows in sizes.items():
        rows = partial(_rows, recommender, table, state.device)
        _write_table(folder, f"{table}_vectors", rows, num_rows, dtype, heartbeat, rows_per_block)
    on_rank_zero(lambda: _write_feature_vectors(folder, recommender))


def _write_table(
    folder: Path | None,
    name: str,
    rows: Callable[[range], Tensor],
    num_rows: int,
    dtype: ExportDtype,
    heartbeat: Callable[[], None],
    rows_per_block: int,
) -> None:
    """``rows`` gives a range of the table to the rank that asks for one; the others ask for none."""
    file: list[TableFile] = []
    for first in range(0, num_rows, rows_per_block):
        block = rows(range(first, min(first + rows_per_block, num_rows)) if folder is not None else range(0))

        def write(first: int = first, block: Tensor = block) -> None:
            assert folder is not None, "on rank 0"
            if not file:
                file.append(TableFile(folder / f"{name}.safetensors", name, num_rows, block.shape[1], dtype))
            file[0].write(first, block)

        on_rank_zero(write)
        heartbeat()


def recommender_of(state: TrainState) -> Recommender:
    """The recommender whose tables lie on the ranks."""
    found = state.model.module
    assert isinstance(found, Recommender), "a run shards a recommender"
    return found


def _rows(recommender: Recommender, table: str, device: torch.device, ids: range) -> Tensor:
    """Rows of ``table`` on the rank that asks for some. Collective."""
    wanted = torch.arange(ids.start, ids.stop, device=device)
    none = wanted[:0]
    items, users = recommender.table_rows(*((wanted, none) if table == "item" else (none, wanted)))
    found = items if table == "item" else users
    assert found is not None, "a table that is asked for is there"
    return found


def _write_feature_vectors(folder: Path | None, recommender: Recommender) -> None:
    """In float32: they are small, and the encoder holds them too."""
    if folder is None or recommender.event_features is None:
        return
    features = recommender.event_features
    tensors = {
        f"{name}.{part}": value.detach().cpu().contiguous()
        for name, vectors in zip(features.names, features.vectors, strict=True)
        for part, value in vectors.named_parameters()
    }
    save_file(tensors, folder / "feature_vectors.safetensors")
