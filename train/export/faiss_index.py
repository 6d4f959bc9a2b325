"""An approximate index of the items with what it is worth: recall against exact search, and users a second of both.

B queries, V items, D the width of the model.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from configs.schema import RunConfig
from data_pipeline.split import Subset
from data_pipeline.stream.sequence_stream import evaluation_batches
from train.export.exported_model import padded
from train.export.program import Inputs
from train.export.rounding import decode_rows
from train.export.table_file import SCALE

INDEX = "items.faiss"
NUM_NEIGHBOURS, EF_CONSTRUCTION, EF_SEARCH = 32, 200, 128
"""Of the HNSW graph: links of an item, and candidates while it is built and searched."""
MAX_USERS = 1000
CUTOFFS = (10, 100)


def write_index(folder: Path, config: RunConfig, program: nn.Module) -> dict[str, Any]:
    """``items.faiss`` over the exported item vectors, and what ``model.json`` says of it.

    Holds the whole table in memory, as every index does.
    """
    import faiss  # an extra: looked for before anything was started

    vectors = exported_table(folder, "item")
    index = faiss.IndexHNSWFlat(vectors.shape[1], NUM_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = EF_CONSTRUCTION, EF_SEARCH
    faiss.omp_set_num_threads(config.hardware.num_threads)
    index.add(vectors.numpy())
    faiss.write_index(index, str(folder / INDEX))
    query = queries_of(folder, config, program, vectors)
    found: dict[str, Any] = {"file": INDEX, "what": "an HNSW index of the items: `faiss.read_index`"}
    found |= {"ef_search": EF_SEARCH, "queries": len(query), "threads": config.hardware.num_threads}
    for k in (each for each in CUTOFFS if each <= len(vectors)) if len(query) else ():
        exact, exact_s = _timed(partial(_exact, query, vectors, k))
        near, near_s = _timed(partial(index.search, query.numpy(), k))
        pairs = zip(exact.numpy(), near[1], strict=True)
        found[f"recall@{k}"] = float(np.mean([len(np.intersect1d(ours, theirs)) / k for ours, theirs in pairs]))
        found |= {f"users_per_s@{k}": len(query) / near_s, f"exact_users_per_s@{k}": len(query) / exact_s}
    return found


def _exact(query: Tensor, vectors: Tensor, k: int) -> Tensor:
    """The k best items ``[B, k]`` of each query."""
    return (query @ vectors.t()).topk(k).indices


@torch.no_grad()
def queries_of(folder: Path, config: RunConfig, program: nn.Module, vectors: Tensor) -> Tensor:
    """The queries ``[B, D]`` of ``program`` for the first users with a test target, at most :data:`MAX_USERS`;
    ``vectors``: the item table of the export in ``folder``."""
    users = exported_table(folder, "user") if (folder / "user_vectors.safetensors").exists() else None
    features = config.model.event_features
    batches = evaluation_batches(
        config.data, Subset.TEST, batch_size=MAX_USERS, rank=0, world_size=1, features=features
    )
    batch = next(batches, None)
    if batch is None:
        return vectors[:0]
    history, lengths = batch.history, batch.history.lengths
    inputs: Inputs = {"item_vectors": padded(vectors[history.item], lengths), "lengths": lengths}
    if users is not None:
        inputs["user_vectors"] = users[history.user]
    if history.features:
        inputs["features"] = {name: padded(values, lengths) for name, values in history.features.items()}
    found: Tensor = program(**inputs)
    return found


def exported_table(folder: Path, name: str) -> Tensor:
    """The float32 rows of a table of the export in ``folder``, ``item`` or ``user``."""
    found = load_file(folder / f"{name}_vectors.safetensors")
    return decode_rows(found[f"{name}_vectors"], found.get(SCALE))


def _timed(search: Callable[[], Any]) -> tuple[Any, float]:
    search()  # the first call makes buffers
    start = time.perf_counter()
    found = search()
    return found, time.perf_counter() - start
