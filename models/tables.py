"""Embedding tables as one TorchRec collection, and their initial rows as a pure function of (seed, table, row)."""

import math
import zlib

import numpy as np
import torch
from torchrec import EmbeddingCollection, EmbeddingConfig

ROWS_PER_CHUNK = 65_536


def build_tables(num_items: int, num_users: int, embedding_dim: int) -> EmbeddingCollection:
    """The ``item`` table and, when ``num_users`` is not 0, the ``user`` table, on the meta device."""
    sizes = {"item": num_items, "user": num_users}
    return EmbeddingCollection(
        tables=[
            EmbeddingConfig(name=name, num_embeddings=rows, embedding_dim=embedding_dim, feature_names=[name])
            for name, rows in sizes.items()
            if rows
        ],
        device=torch.device("meta"),
    )


def initial_rows(
    seed: int, table: str, first_row: int, num_rows: int, embedding_dim: int, std: float
) -> torch.Tensor:
    """Normal rows ``[num_rows, embedding_dim]`` of ``table``, from global row ``first_row`` on.

    A row depends on (seed, table, global row, width) alone, so a table starts alike under every plan and world size.
    """
    chunks = [
        _normal(seed, table, first_row + start, min(ROWS_PER_CHUNK, num_rows - start), embedding_dim)
        for start in range(0, num_rows, ROWS_PER_CHUNK)
    ]
    values = np.concatenate(chunks) if chunks else np.zeros((0, embedding_dim))
    return torch.from_numpy((values * std).astype(np.float32))


def _normal(seed: int, table: str, first_row: int, num_rows: int, embedding_dim: int) -> np.ndarray:
    """Standard normals by Box-Muller over a counter-based hash."""
    first, last = first_row * embedding_dim, (first_row + num_rows) * embedding_dim
    counter = np.arange(first, last, dtype=np.uint64).reshape(num_rows, embedding_dim)
    key = np.uint64((zlib.crc32(table.encode()) << 32) ^ (seed & 0xFFFFFFFF))
    key = _mixed(np.array([key], dtype=np.uint64))[0]
    uniform = [
        (_mixed((counter * np.uint64(2) + np.uint64(part)) ^ key) >> np.uint64(11)) * 2.0**-53 for part in (0, 1)
    ]
    return np.sqrt(-2 * np.log1p(-uniform[0])) * np.cos(2 * math.pi * uniform[1])


def _mixed(value: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser (Steele et al., 2014), element by element."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
